// The demo as people use it: two browsers, each on its own node.
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { launch, loseConnection, person } from './browser.js'
import { Parley } from './parley.js'

let browser: Browser
const ending: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  browser = await launch()
})
afterEach(async () => {
  for (const end of ending.splice(0).reverse()) await end().catch(() => {})
})
afterAll(() => browser.close())

async function node(options: Parameters<typeof Parley.start>[0] = {}): Promise<Parley> {
  const parley = await Parley.start(options)
  ending.push(() => parley.stop())
  return parley
}

async function visit(parley: Parley, name: string, options = {}): Promise<{ page: Page; context: BrowserContext; errors: string[] }> {
  const { context, errors } = await person(browser, name, options)
  ending.push(() => context.close())
  const page = await context.newPage()
  await page.goto(parley.link)
  await online(page)
  return { page, context, errors }
}

const online = (page: Page) => page.locator('#state[data-state=online]').waitFor({ state: 'attached' })
const offline = (page: Page) => page.locator('#state[data-state=offline]').waitFor({ state: 'attached' })
const sees = (page: Page, text: string) => page.locator('#log .text', { hasText: text }).first().waitFor()
const row = (page: Page, name: string) => page.locator('#list button', { hasText: name })
const idOf = (page: Page) => page.locator('#mine').textContent()

async function say(page: Page, text: string): Promise<void> {
  await page.locator('#text').fill(text)
  await page.locator('#text').press('Enter')
}

/** Two people on two nodes who see each other. */
async function two() {
  const one = await node()
  const other = await node({ connect: one.addresses })
  const ada = await visit(one, 'Ada Lovelace')
  const bo = await visit(other, 'Bo')
  await row(ada.page, 'Bo').waitFor()
  await row(bo.page, 'Ada Lovelace').waitFor()
  return { one, other, ada, bo }
}

describe('two nodes', () => {
  test('the room and one to one, both ways, with unread counts and paths', async () => {
    const { ada, bo } = await two()
    await say(ada.page, 'Good morning, everyone')
    await sees(bo.page, 'Good morning, everyone')
    await say(bo.page, 'Good morning, Ada')
    await sees(ada.page, 'Good morning, Ada')

    await row(bo.page, 'Ada Lovelace').click()
    await say(bo.page, 'Did the package arrive?')
    await row(ada.page, 'Bo').locator('.badge').waitFor()
    expect(await ada.page.title()).toBe('(1) parley')
    await row(ada.page, 'Bo').click()
    await sees(ada.page, 'Did the package arrive?')
    expect(await ada.page.title()).toBe('parley')
    await say(ada.page, 'Yes, this morning')
    await sees(bo.page, 'Yes, this morning')
    await ada.page.locator('.mine.received', { hasText: 'Yes, this morning' }).waitFor()
    await ada.page.locator('#about', { hasText: /direct|relay|punch/ }).waitFor()
    expect([...ada.errors, ...bo.errors]).toEqual([])
  })

  test('a name is text and nothing else (G-S10)', async () => {
    const { ada, bo } = await two()
    const evil = '<img src=x onerror=alert(1)>'
    await bo.page.locator('#name').fill(evil)
    await bo.page.locator('#name').press('Enter')
    await row(ada.page, evil).waitFor()
    await say(bo.page, '<script>document.title = "taken"</script>')
    await sees(ada.page, '<script>')
    expect(await ada.page.locator('#log img, #list img, #log script').count()).toBe(0)
    expect(await ada.page.title()).toBe('parley')
    expect(ada.errors).toEqual([])
  })

  test('a reload is the same person, and what was sent meanwhile arrives', async () => {
    const { ada, bo } = await two()
    const id = await idOf(ada.page)
    await row(bo.page, 'Ada Lovelace').click()
    let goOn = () => {}
    const said = new Promise<void>((resolve) => (goOn = resolve))
    await ada.page.route('**/main.js', async (route) => (await said, await route.continue())) // the old page is gone, the new one not there
    const reload = ada.page.reload()
    await bo.page.locator('#about', { hasText: 'not here now' }).waitFor()
    await say(bo.page, 'Are you coming back?')
    goOn()
    await reload
    await online(ada.page)
    expect(await idOf(ada.page)).toBe(id)
    await row(ada.page, 'Bo').locator('.badge').waitFor()
    await row(ada.page, 'Bo').click()
    await sees(ada.page, 'Are you coming back?')
    await bo.page.locator('.mine.received').waitFor()
  })

  test('a lost connection is resumed; what was written meanwhile goes out', async () => {
    const { ada, bo } = await two()
    await row(ada.page, 'Bo').click()
    await loseConnection(ada.page)
    await say(ada.page, 'Written while it was away')
    await row(bo.page, 'Ada Lovelace').locator('.badge').waitFor()
    await ada.page.locator('.mine.received', { hasText: 'Written while it was away' }).waitFor()
    expect(await ada.page.locator('.note').count()).toBe(0) // resumed: nothing may be missing
  })
})

describe('a node that ends', () => {
  test('is told as it is; what is written waits and goes out when it is there again', async () => {
    const one = await Parley.start({ auth: 'none' })
    const ada = await visit(one, 'Ada Lovelace')
    const bo = await visit(one, 'Bo')
    await row(ada.page, 'Bo').click()
    const id = await idOf(ada.page)
    await one.stop('SIGKILL', { keep: true })
    await offline(ada.page)
    await ada.page.getByRole('alert').filter({ hasText: 'does not answer' }).waitFor()
    await say(ada.page, 'One')
    await say(ada.page, 'Two')
    expect(await ada.page.locator('.mine .status').allTextContents()).toEqual(['waits for your node', 'waits for your node'])
    expect(await ada.page.locator('#about').textContent()).toBe('not known while you are offline')
    expect(await ada.page.locator('#list small').allTextContents()).toEqual(['not connected', 'not known while you are offline'])

    const again = await one.again()
    ending.push(() => again.stop())
    await online(ada.page)
    await online(bo.page)
    expect(await idOf(ada.page)).toBe(id)
    await ada.page.locator('.mine.received', { hasText: 'Two' }).waitFor()
    await row(bo.page, 'Ada Lovelace').click()
    await sees(bo.page, 'Two')
    expect((await bo.page.locator('#log .line .text').allTextContents()).slice(-2)).toEqual(['One', 'Two'])
  })

  test('started anew with another link: the page says so, and goes on when it was opened', async () => {
    const one = await Parley.start()
    const ada = await visit(one, 'Ada Lovelace')
    await one.stop('SIGTERM', { keep: true })
    const again = await one.again()
    ending.push(() => again.stop())
    await ada.page.getByRole('alert').filter({ hasText: 'open the link' }).waitFor()
    const tab = await ada.context.newPage()
    await tab.goto(again.link)
    await online(tab)
    await ada.page.evaluate(() => document.dispatchEvent(new Event('visibilitychange'))) // as when the person comes back to it
    await online(ada.page)
  })
})

describe('for everybody', () => {
  test('who presses a name gets that one, whatever comes meanwhile', async () => {
    const one = await node()
    const [ada, bo] = [await visit(one, 'Ada Lovelace'), await visit(one, 'Bo')]
    await row(bo.page, 'Ada Lovelace').click()
    await row(ada.page, 'Bo').hover()
    await ada.page.mouse.down()
    await say(bo.page, 'Hello?')
    await row(ada.page, 'Bo').locator('.badge').waitFor()
    await visit(one, 'Chiara')
    await row(ada.page, 'Chiara').waitFor()
    await ada.page.mouse.up()
    await ada.page.locator('#title', { hasText: 'Bo' }).waitFor()
    await sees(ada.page, 'Hello?')
  })

  test('works by keyboard alone', async () => {
    const one = await node()
    const ada = await visit(one, 'Ada Lovelace')
    await visit(one, 'Bo')
    const { page } = ada
    await row(page, 'Bo').waitFor()
    await page.locator('#list button').first().focus()
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    expect(await page.locator('#title').textContent()).toBe('Bo')
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('text')
    await page.keyboard.type('Hello')
    await page.keyboard.press('Shift+Enter')
    await page.keyboard.type('Bo')
    await page.keyboard.press('Enter')
    await sees(page, 'Hello\nBo')
  })

  test('on a narrow screen it is one column, and nothing is wider than the screen', async () => {
    const one = await node()
    const bo = await visit(one, 'Bo')
    const { page } = await visit(one, 'Ada Lovelace', { viewport: { width: 380, height: 700 } })
    await row(bo.page, 'Ada Lovelace').waitFor()
    await say(page, `A very long word: ${'w'.repeat(300)}`)
    await sees(bo.page, 'A very long word')
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(380)
    expect(await page.locator('.side').isVisible()).toBe(false)
    await page.locator('#back').click()
    expect(await page.locator('.chat').isVisible()).toBe(false)
    await row(page, 'Bo').click()
    expect(await page.locator('#title').textContent()).toBe('Bo')
  })

  test('runs under a strict content security policy', async () => {
    const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"
    const one = await node({ args: ['--set', `http.security.contentSecurityPolicy=${policy}`] })
    const { page, errors } = await visit(one, 'Ada Lovelace')
    expect((await page.request.get(one.url)).headers()['content-security-policy']).toBe(policy)
    expect(await page.locator('#list .face').first().evaluate((face) => getComputedStyle(face).borderRadius)).toBe('50%')
    expect(errors).toEqual([])
  })
})

// With UPDATE_SCREENSHOTS it makes the picture of the README.
test('three people on two nodes: everybody sees everything', async () => {
  const { other, ada, bo } = await two()
  const chi = await visit(other, 'Chiara')
  await row(ada.page, 'Chiara').waitFor()
  await say(bo.page, 'Morning! Is the train strike still on?')
  await sees(chi.page, 'train strike')
  await say(chi.page, 'Until noon, they say.')
  await sees(chi.page, 'Until noon')
  await say(chi.page, 'I took the bike.')
  await sees(ada.page, 'the bike')
  await say(ada.page, 'Then I work from the garden today')
  await sees(bo.page, 'garden')
  await say(bo.page, 'Lucky you. Here it is raining, and the café is full of people who had the same idea as me.')
  await row(bo.page, 'Ada Lovelace').click()
  await say(bo.page, 'Did the package arrive?')
  await row(ada.page, 'Bo').locator('.badge').waitFor()
  await ada.page.locator('#list small', { hasText: /direct|relay/ }).first().waitFor()
  for (const { page } of [ada, bo, chi]) {
    for (const name of ['Ada Lovelace', 'Bo', 'Chiara']) {
      const own = (await page.locator('#name').inputValue()) === name
      if (!own) await row(page, name).waitFor()
    }
    expect(await page.locator('#list button').count()).toBe(3) // the room, and the two others
  }
  expect([...ada.errors, ...bo.errors, ...chi.errors]).toEqual([])
  if (process.env.UPDATE_SCREENSHOTS) {
    await ada.page.screenshot({ path: new URL('../../docs/img/demo.png', import.meta.url).pathname })
  }
})
