// A page that another site serves asks the person for the use of their node.
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { launch, person } from './browser.js'
import { Parley } from './parley.js'

const site = {
  'index.html': '<!doctype html><title>a shop</title><button>connect</button><output></output><script type="module" src="page.js"></script>',
  'page.js': `
    import { connect } from '/parley.js'
    const url = new URLSearchParams(location.search).get('node')
    const ask = { protocols: ['chat'], topics: ['room/*'], storage: 50 * 2 ** 20 }
    document.querySelector('button').onclick = async () => {
      const out = document.querySelector('output')
      out.value = ''
      try {
        globalThis.node = await connect({ url, ask, onState: ({ state, error }) => { globalThis.last = state + ' ' + (error?.code ?? '') } })
        out.value = 'connected'
      } catch (error) {
        out.value = error.code + ': ' + error.message
      }
    }
    globalThis.code = (promise) => promise.then(() => 'done', (error) => error.code + ': ' + error.message)`,
}

let browser: Browser
let mine: Parley // the person's own node
let shop: Parley // serves the other site's page, and nothing else
let context: BrowserContext

beforeAll(async () => {
  browser = await launch()
  ;[mine, shop] = await Promise.all([Parley.start(), Parley.start({ auth: 'none', site })])
})
afterEach(() => context.close())
afterAll(async () => {
  await browser.close()
  await Promise.all([mine.stop(), shop.stop()])
})

/** The other site's page, in the browser of a person who has been let in by the node. */
async function visit(letIn = true): Promise<Page> {
  ;({ context } = await person(browser))
  if (letIn) await (await context.newPage()).goto(mine.link)
  const page = await context.newPage()
  await page.goto(`${theirs()}/?node=${encodeURIComponent(mine.url)}`)
  return page
}

/** Another host than the node's, so another site and not only another port. */
const theirs = () => `http://127.0.0.1:${shop.port}`

const says = async (page: Page, text: string | RegExp) => {
  const out = page.locator('output')
  await out.filter({ hasText: text }).waitFor()
  return out.textContent()
}

async function asked(page: Page): Promise<Page> {
  const [question] = await Promise.all([context.waitForEvent('page'), page.locator('button').click()])
  await question.locator('form').waitFor()
  return question
}

test('is asked once, gets what was allowed and nothing else, and loses it when it is taken back', async () => {
  const page = await visit()
  const question = await asked(page)
  const text = await question.locator('body').innerText()
  for (const part of [theirs(), 'protocol chat', 'topic room/*', '50.0 MiB']) expect(text).toContain(part)
  if (process.env.SCREENSHOTS) await question.screenshot({ path: `${process.env.SCREENSHOTS}/consent.png` })
  await question.getByRole('button', { name: 'Allow', exact: true }).click() // waits until it may be clicked
  await says(page, 'connected')

  const run = (call: string) => page.evaluate(`code(${call})`)
  expect(await run(`node.start('chat', () => 'hello')`)).toBe('done')
  expect(await run(`node.request(node.peer, 'chat')`)).toBe('done')
  expect(await run(`node.subscribe('room/1').ready`)).toBe('done')
  expect(await run(`node.start('bank', () => {})`)).toMatch(/^forbidden: .*protocol "bank".*allowed: chat/)
  expect(await run(`node.send(node.peer, 'bank', 1)`)).toMatch(/^forbidden: /)
  expect(await run(`node.publish('parley-demo', 1)`)).toMatch(/^forbidden: .*topic "parley-demo"/)
  const peer = await page.evaluate('node.peer')

  await page.reload()
  await page.locator('button').click()
  await says(page, 'connected') // without a question
  expect(await page.evaluate('node.peer')).toBe(peer)

  const answers = await context.newPage()
  await answers.goto(`${mine.url}/_parley/consent`)
  await answers.locator('tr', { hasText: theirs() }).getByRole('button', { name: 'Take back' }).click()
  await page.waitForFunction(() => (globalThis as any).last === 'closed forbidden', undefined, { polling: 50 })
  await page.reload()
  const again = await asked(page) // what was kept is refused, so the person is asked anew
  await again.close()
  expect(await says(page, 'closed the question')).toMatch(/^forbidden/)
})

test('a no is a no, and is remembered', async () => {
  const page = await visit()
  let question = await asked(page)
  await question.getByRole('button', { name: "Don't allow" }).click()
  expect(await says(page, 'did not allow')).toMatch(/^forbidden/)
  question = await asked(page)
  await question.getByText('you said no to this site').waitFor()
})

test('a browser that the node does not know cannot answer', async () => {
  const page = await visit(false)
  const [question] = await Promise.all([context.waitForEvent('page'), page.locator('button').click()])
  await question.getByText('needs its launch link').waitFor()
  expect(await question.locator('form').count()).toBe(0)
})
