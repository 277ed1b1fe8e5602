// A page that was written for the existing client of protocol v1, on a node that
// lets in who opened its link: docs/spec/gateway.md sections 2 and 3.
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { launch, person } from './browser.js'
import { Parley } from './parley.js'
import { v1 } from './v1.js'

/** The site has the client at the names that the existing one is served by: they are the site's. */
const site = {
  'index.html': '<!doctype html><link rel="icon" href="data:,"><title>an old page</title><script type="module" src="index.js"></script>',
  ...v1,
  'types.js': `export const mine = 'types'`,
  // A reload is the same peer, as pages do it that keep their key.
  'index.js': `
    import { connect } from './client.js'
    import { mine } from './types.js'
    globalThis.log = []
    globalThis.connect = connect
    globalThis.mine = mine
    const onClose = () => log.push(['closed'])
    globalThis.client = await connect({ peerKey: sessionStorage.peerKey, onClose })
    sessionStorage.peerKey = client.peerKey
    globalThis.ready = true`,
  'new.html': '<!doctype html><link rel="icon" href="data:,"><title>a new page</title><script type="module" src="new.js"></script>',
  'new.js': `
    import { connect } from '/parley.js'
    globalThis.log = []
    globalThis.node = await connect({ identity: 'new' })
    globalThis.ready = true`,
}

const nobody = '12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN'

let browser: Browser
let one: Parley
let other: Parley
const ending: (() => Promise<unknown>)[] = []

/** A page that has connected. */
interface Old {
  page: Page
  context: BrowserContext
  id: string
  errors: string[]
}

beforeAll(async () => {
  browser = await launch()
  const args = ['--set', 'peer.sendTimeout=6s']
  one = await Parley.start({ site, args })
  other = await Parley.start({ site, args, connect: one.addresses })
})
afterEach(async () => {
  for (const end of ending.splice(0).reverse()) await end()
})
afterAll(async () => {
  await browser.close()
  await Promise.all([one.stop(), other.stop()])
})

async function visit(node: Parley, path = '/'): Promise<Old> {
  const { context, errors } = await person(browser)
  ending.push(() => context.close())
  const page = await context.newPage()
  await page.goto(node.link)
  if (path !== '/') await page.goto(node.url + path)
  await ready(page, errors)
  return { page, context, errors, id: await page.evaluate('globalThis.node?.peer ?? client.peerID') }
}

async function ready(page: Page, errors: string[] = []): Promise<void> {
  await page
    .waitForFunction('globalThis.ready', undefined, { polling: 20 })
    .catch(async (error) => expect.fail(`${error}\n${errors.join('\n')}\n${page.url()}\n${await page.content()}`))
}

/** Runs a call in a page: its result, or the message of its error. */
const run = ({ page }: Old, call: string): Promise<any> => page.evaluate(`(async () => ${call})().catch((error) => 'error: ' + error.message)`)

/** What the page's callbacks wrote down. */
const log = ({ page }: Old): Promise<unknown[][]> => page.evaluate('log')

const until = (condition: () => unknown) => vi.waitUntil(condition, { timeout: 60_000, interval: 20 })

/** Waits until a page has written this down. */
async function logs(old: Old, entry: unknown[]): Promise<void> {
  let last: unknown[][] = []
  await until(async () => (last = await log(old)).some((e) => JSON.stringify(e) === JSON.stringify(entry))).catch(() =>
    expect.fail(`no ${JSON.stringify(entry)} in ${JSON.stringify(last)}`),
  )
}

const listen = (old: Old, protocol: string) => run(old, `client.start('${protocol}', (peer, data) => void log.push(['data', peer, data]))`)
const enter = (old: Old, topic: string) =>
  run(old, `client.subscribe('${topic}', (peer, data) => void log.push(['topic', peer, data]), (peer, joined) => void log.push(['change', peer, joined]))`)

describe('two pages on two nodes', () => {
  let ada: Old
  let bo: Old
  beforeEach(async () => {
    ada = await visit(one)
    bo = await visit(other)
  })

  test('are peers by the link alone, with the files of their site', async () => {
    for (const old of [ada, bo]) {
      expect(old.id).toMatch(/^12D3KooW/)
      expect(await run(old, `[client.version, client.connected, client.peerKey.length, client.peerKey.slice(0, 4), mine]`)).toEqual(['1.0.0', true, 92, 'CAES', 'types'])
      expect(old.errors).toEqual([])
    }
  })

  test('send both ways, in order, and each send resolves when it was delivered', async () => {
    await listen(ada, 'talk')
    await listen(bo, 'talk')
    // more on the way than the reference can have without cutting the socket (G-D3)
    expect(await run(ada, `(await Promise.all(Array.from({ length: 300 }, (_, i) => client.send('${bo.id}', 'talk', i)))).length`)).toBe(300)
    await logs(bo, ['data', ada.id, 299]) // delivered is not taken yet
    expect(await log(bo)).toEqual(Array.from({ length: 300 }, (_, i) => ['data', ada.id, i]))
    const odd = { text: 'ü😀\u2028</script>', list: [1, null, { deep: true }], bytes: { $bytes: 'aGk=' }, __proto__x: 0 }
    expect(await run(bo, `client.send('${ada.id}', 'talk', ${JSON.stringify(odd)})`)).toBe(undefined)
    await logs(ada, ['data', bo.id, odd])
    expect(await log(ada)).toEqual([['data', bo.id, odd]])
    expect([...ada.errors, ...bo.errors]).toEqual([])
  })

  test('meet in a topic: who is here, what is published, the own included, who leaves', async () => {
    await enter(ada, 'room')
    await enter(bo, 'room')
    await logs(ada, ['change', bo.id, true])
    await logs(bo, ['change', ada.id, true])
    expect(await run(ada, `client.listPeers('room')`)).toEqual([bo.id])
    for (let i = 0; i < 20; i++) await run(ada, `client.publish('room', { n: ${i} })`)
    const said = Array.from({ length: 20 }, (_, n) => ['topic', ada.id, { n }])
    for (const old of [ada, bo]) {
      await logs(old, said.at(-1)!)
      expect((await log(old)).filter(([what]) => what === 'topic')).toEqual(said)
    }
    await run(bo, `client.unsubscribe('room')`)
    await logs(ada, ['change', bo.id, false])
    expect(await run(ada, `client.listPeers('room')`)).toEqual([])
    await run(ada, `client.publish('room', 'to myself')`)
    await logs(ada, ['topic', ada.id, 'to myself'])
    expect((await log(bo)).filter(([, , data]) => data === 'to myself')).toEqual([])
  })

  test('add and remove peers, those that are none too', async () => {
    expect(await run(ada, `client.addPeers(['${bo.id}', 'nobody'])`)).toBe(null)
    expect(await run(ada, `client.removePeers(['${bo.id}', ''])`)).toBe(null)
  })

  test('a page that starts late gets what waited for it', async () => {
    await listen(ada, 'late')
    const sent = run(ada, `client.send('${bo.id}', 'late', 'early bird')`)
    await listen(bo, 'late')
    expect(await sent).toBe(undefined)
    await logs(bo, ['data', ada.id, 'early bird'])
    expect(await log(bo)).toEqual([['data', ada.id, 'early bird']])
  })

  test('what cannot arrive rejects with its reason, and the page goes on', async () => {
    await listen(ada, 'talk')
    await listen(ada, 'elsewhere')
    await listen(bo, 'talk')
    expect(await run(ada, `client.send('nobody', 'talk', 1)`)).toMatch(/^error: invalid peer ID: /)
    const [unreachable, notStarted] = await Promise.all([run(ada, `client.send('${nobody}', 'talk', 1)`), run(ada, `client.send('${bo.id}', 'elsewhere', 1)`)])
    expect(unreachable).toMatch(new RegExp(`^error: peer unreachable: ${nobody}: .`))
    expect(notStarted).toBe('error: protocol not started by peer: elsewhere')
    expect(await run(ada, `client.start('talk', () => {})`)).toBe('error: already started protocol: talk')
    expect(await run(ada, `client.start('/parley/x', () => {})`)).toBe('error: protocol is reserved: /parley/x')
    await run(ada, `client.stop('elsewhere')`)
    expect(await run(ada, `client.stop('elsewhere')`)).toBe('error: protocol not started: elsewhere')
    expect(await run(ada, `client.send('${bo.id}', 'talk', 'still here')`)).toBe(undefined)
    await logs(bo, ['data', ada.id, 'still here'])
  })

  test('a page that leaves is gone at once, and one that comes back is the same', async () => {
    await listen(ada, 'talk')
    await enter(ada, 'room')
    await listen(bo, 'talk')
    await enter(bo, 'room')
    await logs(ada, ['change', bo.id, true])
    await bo.page.goto('about:blank')
    await logs(ada, ['change', bo.id, false])
    expect(await run(ada, `client.send('${bo.id}', 'talk', 'are you there?')`)).toMatch(new RegExp(`^error: peer unreachable: ${bo.id}: `))

    await bo.page.goto(other.url)
    await ready(bo.page, bo.errors)
    expect(await run(bo, 'client.peerID')).toBe(bo.id)
    await enter(bo, 'room')
    await listen(bo, 'talk')
    expect(await run(ada, `client.send('${bo.id}', 'talk', 'welcome back')`)).toBe(undefined)
    await logs(bo, ['data', ada.id, 'welcome back'])
    await until(async () => (await log(ada)).filter((e) => JSON.stringify(e) === JSON.stringify(['change', bo.id, true])).length === 2)
  })

  test('a reload has its peer again at once, ten times over (G-R10)', async () => {
    await listen(bo, 'talk')
    for (let i = 0; i < 10; i++) {
      await ada.page.reload()
      await ready(ada.page, ada.errors)
      expect(await run(ada, 'client.peerID')).toBe(ada.id)
    }
    await listen(ada, 'talk')
    expect(await run(ada, `client.send('${bo.id}', 'talk', 'after all')`)).toBe(undefined)
    expect(await run(bo, `client.send('${ada.id}', 'talk', 'hello again')`)).toBe(undefined)
    await logs(ada, ['data', bo.id, 'hello again'])
  })

  test('with a page of today: messages and topics both ways', async () => {
    const neu = await visit(other, '/new.html')
    await listen(ada, 'talk')
    await enter(ada, 'room')
    await run(neu, `node.start('talk', ({ from, data }) => { log.push(['data', from, data]) })`)
    await run(
      neu,
      `{ const room = node.subscribe('room', { state: { name: 'new' } })
         room.on('message', ({ from, data }) => log.push(['topic', from, data]))
         room.on('leave', ({ peer }) => log.push(['change', peer, false]))
         globalThis.room = room
         await room.ready }`,
    )
    await logs(ada, ['change', neu.id, true])
    await until(async () => (await run(neu, `[...room.members.keys()]`)).includes(ada.id))
    expect(await run(ada, `client.send('${neu.id}', 'talk', { old: 1 })`)).toBe(undefined)
    await logs(neu, ['data', ada.id, { old: 1 }])
    // a page of v1 tells no more than that it has it
    expect(await run(neu, `node.send('${ada.id}', 'talk', { bytes: new Uint8Array([104, 105]) })`)).toBe('delivered')
    await logs(ada, ['data', neu.id, { bytes: { $bytes: 'aGk=' } }])
    await run(ada, `client.publish('room', 'from v1')`)
    await run(neu, `room.publish('from v2')`)
    for (const old of [ada, neu]) {
      await logs(old, ['topic', ada.id, 'from v1'])
      await logs(old, ['topic', neu.id, 'from v2'])
    }
    await run(neu, `room.close()`)
    await logs(ada, ['change', neu.id, false])
    // a state that changes is no news for v1: one coming, one going
    expect((await log(ada)).filter(([what, who]) => what === 'change' && who === neu.id)).toHaveLength(2)
  })
})

describe('the weaknesses of the existing client', () => {
  test('row 5: a callback that waits for its own send freezes the pushes of its page alone', async () => {
    const ada = await visit(one)
    const bo = await visit(one)
    const chi = await visit(one)
    await listen(bo, 'ping')
    await listen(chi, 'ping')
    await run(ada, `client.start('ping', async (peer, data) => { log.push(['data', peer, data]); await client.send('${bo.id}', 'ping', 'frozen'); log.push(['thawed']) })`)
    expect(await run(bo, `client.send('${ada.id}', 'ping', 1)`)).toBe(undefined)
    expect(await run(bo, `client.send('${ada.id}', 'ping', 2)`)).toBe(undefined)
    await logs(bo, ['data', ada.id, 'frozen'])
    expect(await run(ada, `client.listPeers('nowhere')`)).toEqual([]) // answers come
    expect(await run(bo, `client.send('${chi.id}', 'ping', 'alive')`)).toBe(undefined)
    await logs(chi, ['data', bo.id, 'alive'])
    expect(await log(ada)).toEqual([['data', bo.id, 1]])
  })

  test('rows 6 and 7: files that are not there settle every call, and the next equal one (G-D12)', async () => {
    const ada = await visit(one)
    const none = 'files are not available on this node'
    for (let i = 0; i < 3; i++) {
      expect(await run(ada, `client.listFiles('${ada.id}')`)).toBeOneOf([`error: ${none}`, {}])
      expect(await run(ada, `client.getFile('QmX', '${ada.id}')`)).toBe(`error: ${none}`)
    }
    expect(await run(ada, `Promise.all([client.getFile('QmY'), client.getFile('QmY')])`)).toBe(`error: ${none}`)
    expect(await run(ada, `client.storeFile('a.txt', new Uint8Array(3))`)).toBe(`error: ${none}`)
    expect(await run(ada, `client.createDirectory('docs')`)).toBe(`error: ${none}`)
    expect(await run(ada, `client.removeFile('a.txt')`)).toBe(`error: ${none}`)
  })

  test('rows 8 and 9: a node that stops answers what is pending, then the page is told (G-D12)', async () => {
    const node = await Parley.start({ site, args: ['--set', 'peer.sendTimeout=60s'] })
    const ada = await visit(node)
    await listen(ada, 'talk')
    const pending = [`client.send('${nobody}', 'talk', 1)`, `client.send('${nobody}', 'talk', 2)`].map((call) => run(ada, call))
    await run(ada, `client.listPeers('x')`) // both are under way
    await node.stop()
    for (const answer of await Promise.all(pending)) expect(answer).toBe('error: peer closed')
    await logs(ada, ['closed'])
    expect(await run(ada, `client.connected`)).toBe(false)
  })

  test('row 9: its own close is told too, and leaves nothing', async () => {
    const ada = await visit(one)
    const bo = await visit(one)
    await enter(bo, 'room')
    await enter(ada, 'room')
    await logs(bo, ['change', ada.id, true])
    await run(ada, `client.close()`)
    await logs(ada, ['closed'])
    await logs(bo, ['change', ada.id, false])
  })
})

test('a second tab with the same key is told, and may try again when the first has left', async () => {
  const ada = await visit(one)
  const key = await run(ada, 'client.peerKey')
  const tab = await ada.context.newPage()
  await tab.goto(one.url)
  await ready(tab)
  const again = () => tab.evaluate(`connect({ peerKey: ${JSON.stringify(key)} }).then((c) => c.peerID, (error) => 'error: ' + error.message)`)
  expect(await again()).toBe('error: peer ID already in use (possible duplicate browser tab)')
  await ada.page.close()
  await until(async () => (await again()) === ada.id)
})
