// The same pages in Firefox, whose sockets, streams and storage are not
// Chromium's. It runs in `make long`, which installs Firefox; the tests beside
// this one are its short form.
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { channelSite } from './channelsite.js'
import { Firefox, type Tab } from './firefox.js'
import { Parley } from './parley.js'
import { v1 } from './v1.js'

/** What the pages have given their global scope, inside `run`. */
declare const globalThis: any

const site = {
  ...channelSite,
  ...v1,
  'client.html': `<!doctype html><link rel="icon" href="data:,"><title>a page</title><script type="module">
    import * as parley from '/parley.js'; import * as old from '/client.js'
    const sockets = [] // as a test loses one
    const Native = WebSocket
    globalThis.WebSocket = class extends Native { constructor(...args) { super(...args); sockets.push(this) } }
    Object.assign(globalThis, { parley, old, sockets, ready: true })
  </script>`,
  'worker.js': `
    import { connect } from '/parley.js'
    const node = await connect({ identity: 'worker' })
    await node.start('upper', ({ data }) => data.toUpperCase())
    postMessage(node.peer)
  `,
  'shared.js': `
    import { connect } from '/parley.js'
    const node = connect({ identity: 'shared-worker' })
    onconnect = async ({ ports: [port] }) => {
      const n = await node
      port.onmessage = async ({ data: [to, protocol, data] }) => port.postMessage(await n.request(to, protocol, data))
      port.postMessage(n.peer)
    }
  `,
}

let firefox: Firefox
const ending: (() => Promise<unknown>)[] = []

async function node(options: Parameters<typeof Parley.start>[0] = {}): Promise<Parley> {
  const parley = await Parley.start(options)
  ending.push(() => parley.stop())
  return parley
}

/** Two nodes that know each other. */
async function two(options: Parameters<typeof Parley.start>[0] = {}): Promise<[Parley, Parley]> {
  const one = await node(options)
  return [one, await node({ ...options, connect: one.addresses })]
}

/** A page of the site with a client of its own. */
async function client(at: Parley, identity: string): Promise<{ tab: Tab; peer: string }> {
  const tab = await firefox.person(at.link)
  await firefox.call('browsingContext.navigate', { context: tab.context, url: `${at.url}/client.html`, wait: 'complete' })
  await tab.until(() => globalThis.ready)
  const peer = await tab.run(async (identity) => {
    globalThis.node = await globalThis.parley.connect({ identity })
    return globalThis.node.peer as string
  }, identity)
  return { tab, peer }
}

describe('Firefox', () => {
  beforeAll(async () => {
    firefox = await Firefox.launch()
  })
  afterEach(async () => {
    for (const end of ending.splice(0).reverse()) await end().catch(() => {})
  })
  afterAll(() => firefox?.close())

  test('the demo: room and one to one on two nodes, a reload, a node that is killed', async () => {
    const [one, other] = await two()
    const ada = await person(one, 'Ada')
    const bo = await person(other, 'Bo')
    await meets(ada, 'Bo')
    await meets(bo, 'Ada')
    await say(ada, 'Good morning from Firefox')
    await sees(bo, 'Good morning from Firefox')
    await choose(bo, 'Ada')
    await say(bo, 'Did the package arrive?')
    await ada.until(() => document.title === '(1) parley')
    await choose(ada, 'Bo')
    await sees(ada, 'Did the package arrive?')
    await say(ada, 'This morning')
    await sees(bo, 'This morning')
    await ada.until(() => document.querySelector('.mine.received'))

    const mine = () => document.querySelector('#mine')!.textContent
    const id = await ada.run(mine)
    await ada.reload()
    await online(ada)
    expect(await ada.run(mine)).toBe(id)
    await choose(bo, 'Ada')
    await say(bo, 'Still you?')
    await choose(ada, 'Bo')
    await sees(ada, 'Still you?')
    expect(await ada.run(() => [document.querySelector('#text')!].map((t) => t.scrollHeight - t.clientHeight))).toEqual([0])
    await ada.screenshot(join(tmpdir(), 'parley-firefox.png'))
    expect([...ada.errors, ...bo.errors]).toEqual([])

    await one.stop('SIGKILL', { keep: true })
    await ada.until(() => document.querySelector('#state[data-state=offline]'))
    await say(ada, 'Written while it was away')
    const again = await one.again({ connect: other.addresses })
    ending.push(() => again.stop())
    const tab = await firefox.tab(again.link, ada.userContext) // the link of the new run
    await online(tab)
    await ada.run(() => document.dispatchEvent(new Event('visibilitychange')))
    await online(ada)
    await sees(bo, 'Written while it was away')
  })

  test('10,000 messages from node to node, once and in order, though the connection is lost', async () => {
    const [one, other] = await two({ site })
    const [alice, bob] = [await client(one, 'alice'), await client(other, 'bob')]
    await bob.tab.run(() => globalThis.node.start('count', ({ data }: { data: number }) => void (globalThis.got ??= []).push(data)))
    const levels = await alice.tab.run(async (to) => {
      const { node, sockets } = globalThis
      const sent: Promise<string>[] = []
      for (let i = 0; i < 10_000; i++) {
        sent.push(node.send(to, 'count', i))
        if (i % 2000 === 1999) {
          await sent[i - 500]
          sockets.at(-1).close(4000, 'lost')
        }
      }
      return [...new Set(await Promise.all(sent))]
    }, bob.peer)
    expect(levels).toEqual(['handled'])
    expect(await alice.tab.run(() => globalThis.sockets.length)).toBeGreaterThan(1)
    const wrong = () => (globalThis.got as number[]).findIndex((n, i) => n !== i)
    expect(await bob.tab.run(() => globalThis.got.length)).toBe(10_000)
    expect(await bob.tab.run(wrong)).toBe(-1)
  })

  test('bytes, replies, topics, signals and errors are what they are elsewhere', async () => {
    const [one, other] = await two({ site })
    const [alice, bob] = [await client(one, 'alice'), await client(other, 'bob')]
    await bob.tab.run(() => globalThis.node.start('echo', ({ data }: { data: unknown }) => data))
    await bob.tab.run(() => void globalThis.node.subscribe('room').on('message', ({ data }: { data: unknown }) => (globalThis.heard = data)))
    const seen = await alice.tab.run(async (to) => {
      const { node } = globalThis
      const bytes = await node.request(to, 'echo', new Uint8Array([0, 255, 7]))
      const code = (promise: Promise<unknown>) => promise.then(() => 'done', (e: any) => e.code ?? e.name)
      const room = node.subscribe('room')
      await new Promise<void>((resolve) => room.on('join', () => resolve()))
      await room.publish({ at: 'noon' })
      return {
        bytes: bytes instanceof Uint8Array && [...bytes],
        map: await node.request(to, 'echo', { a: [1, -0.5, null, 'ü'], big: 2 ** 60 }),
        wrong: await code(node.send('not a peer', 'echo', 1)),
        aborted: await code(node.send(to, 'nobody listens', 1, { signal: AbortSignal.timeout(200) })),
      }
    }, bob.peer)
    expect(seen).toEqual({ bytes: [0, 255, 7], map: { a: [1, -0.5, null, 'ü'], big: 2 ** 60 }, wrong: 'malformed', aborted: 'timeout' })
    await bob.tab.until(() => globalThis.heard?.at === 'noon')
  })

  test('workers, shared workers and a page of v1', async () => {
    const one = await node({ site })
    const { tab, peer } = await client(one, 'alice')
    const answers = await tab.run(async (me) => {
      const { node, old } = globalThis
      const said = (port: { onmessage: unknown }) => new Promise<any>((resolve) => (port.onmessage = (e: MessageEvent) => resolve(e.data)))
      const worker = await said(new Worker('worker.js', { type: 'module' }))
      const upper = await node.request(worker, 'upper', 'hello')
      const { port } = new SharedWorker('shared.js', { type: 'module' })
      const shared = await said(port)
      port.postMessage([worker, 'upper', 'from shared'])
      const through = await said(port)
      const page = await old.connect()
      await page.start('mixed', () => {})
      const { from, data } = await new Promise<any>((resolve) => {
        void node.start('mixed', resolve).then(() => page.send(me, 'mixed', { n: 1 }))
      })
      return { upper, shared: shared !== me, through, v1: from === page.peerID, data }
    }, peer)
    expect(answers).toEqual({ upper: 'HELLO', shared: true, through: 'FROM SHARED', v1: true, data: { n: 1 } })
  })

  test('a channel carries 10 MiB each way, and a reader that stops holds up the writer', async () => {
    const [one, other] = await two({ auth: 'none', site })
    const tabs = [await firefox.person(one.link), await firefox.person(other.link)]
    const peers: string[] = []
    for (const [i, tab] of tabs.entries()) {
      await tab.until(() => globalThis.ready)
      peers.push(await tab.run((who) => globalThis.join(who) as Promise<string>, `agent-${i}`))
    }
    const [ann, bob] = tabs as [Tab, Tab]
    await bob.run(() => globalThis.accept('bulk/1'))
    await bob.run(() => void globalThis.accepted.next().then((r: any) => (globalThis.ch = r.value)))
    await ann.run(async (peer) => void (globalThis.ch = await globalThis.room.open(peer, 'bulk/1')), peers[1]!)
    await bob.until(() => globalThis.ch)
    const size = 10 << 20
    const write = (seed: number, size: number) => void (globalThis.written = globalThis.source(seed, size).pipeTo(globalThis.ch.writable, { preventClose: true }))
    await ann.run(write, 1, size)
    let before = -1
    for (let same = 0; same < 20; ) { // nobody reads: the writer comes to stand
      const now = await ann.run(() => globalThis.made.bytes as number)
      same = now === before && now > 0 ? same + 1 : 0
      before = now
    }
    expect(before).toBeLessThan(2 << 20)
    await bob.run(write, 2, size)
    const take = (size: number) => globalThis.take(globalThis.ch, size) as Promise<string>
    const hash = (seed: number, size: number) => globalThis.hashOf(seed, size) as Promise<string>
    const [atBob, atAnn] = await Promise.all([bob.run(take, size), ann.run(take, size)])
    expect(atBob).toBe(await ann.run(hash, 1, size))
    expect(atAnn).toBe(await bob.run(hash, 2, size))
  })
})

const online = (tab: Tab) => tab.until(() => document.querySelector('#state[data-state=online]'))
const sees = (tab: Tab, text: string) => tab.until((text) => document.querySelector('#log')!.textContent!.includes(text), text)
const say = (tab: Tab, text: string) => tab.type('#text', `${text}\n`)

/** Waits until somebody is in the list. */
const meets = (tab: Tab, name: string) => tab.until((name) => [...document.querySelectorAll('#list button')].some((b) => b.textContent!.includes(name)), name)

/** Somebody who has opened the demo and said who they are. */
async function person(at: Parley, name: string): Promise<Tab> {
  const tab = await firefox.person(at.link)
  await online(tab)
  await tab.type('#name', `${name}\n`)
  return tab
}

/** Goes to the conversation with somebody. */
async function choose(tab: Tab, name: string): Promise<void> {
  await tab.until((name) => {
    const found = [...document.querySelectorAll<HTMLElement>('#list button')].find((b) => b.textContent!.includes(name))
    found?.click()
    return !!found
  }, name)
}
