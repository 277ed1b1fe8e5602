// The client against real nodes: as a program in Node.js, in a page, in a
// worker, beside a page of v1.
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { connect, type ConnectOptions, type ParleyNode, type SocketConstructor } from '../../client/src/index.js'
import { launch, loseConnection, person } from './browser.js'
import { Parley } from './parley.js'
import { v1 } from './v1.js'

const Ws = createRequire(import.meta.url)('ws') as SocketConstructor

/** A site with nothing on it but the client. */
const site = {
  'index.html': '<!doctype html><title>a page</title><script type="module" src="page.js"></script>',
  ...v1,
  'page.js': `import * as parley from '/parley.js'; import * as v1 from '/client.js'; Object.assign(globalThis, { parley, v1 })`,
  'shared.js': `
    import { connect } from '/parley.js'
    const node = connect({ identity: 'shared-worker' })
    onconnect = async ({ ports: [port] }) => {
      const n = await node
      port.onmessage = async ({ data: [to, protocol, data] }) => port.postMessage(await n.request(to, protocol, data))
      port.postMessage(n.peer)
    }
  `,
  'worker.js': `
    import { connect } from '/parley.js'
    const node = await connect({ identity: 'worker' })
    await node.start('upper', ({ data }) => data.toUpperCase())
    postMessage(node.peer)
  `,
}

let browser: Browser
let parley: Parley
const ending: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  browser = await launch()
  parley = await Parley.start({ site })
})
afterEach(async () => {
  for (const end of ending.splice(0).reverse()) await end()
})
afterAll(async () => {
  await browser.close()
  await parley.stop()
})

/** A program: what a page is, in Node.js. */
async function program(identity: string, options: ConnectOptions = {}, at = parley): Promise<ParleyNode> {
  const node = await connect({ url: at.url, token: () => at.token, identity, ...options })
  ending.push(() => node.close())
  return node
}

/** A page of the site, and what it is called. */
async function page(identity: string): Promise<{ page: Page; peer: string }> {
  const { context, errors } = await person(browser)
  ending.push(() => context.close())
  const page = await context.newPage()
  await page.goto(parley.link)
  await page
    .waitForFunction(() => 'parley' in globalThis, undefined, { polling: 50 })
    .catch(async (error) => expect.fail(`${error}\n${errors.join('\n')}\n${page.url()}\n${await page.content()}`))
  const peer = await page.evaluate(async (identity) => {
    const node = await (globalThis as any).parley.connect({ identity })
    Object.assign(globalThis, { node })
    return node.peer
  }, identity)
  return { page, peer }
}

describe('a program', () => {
  test('gets in with the token alone, and is told when it has none', async () => {
    await expect(connect({ url: parley.url })).rejects.toMatchObject({ code: 'unauthorized' })
    await expect(connect({ url: parley.url, token: 'guessed' })).rejects.toMatchObject({ code: 'unauthorized' })
    await expect(connect({ url: 'ws://127.0.0.1:9/ws', token: 'x' })).rejects.toMatchObject({ code: 'unreachable' })
    expect((await program('alice')).peer).toMatch(/^12D3KooW/)
  })

  test('keeps its id by identity, and can take it elsewhere', async () => {
    const first = await program('keeper')
    const key = await first.exportKey()
    await first.close()
    expect((await program('keeper')).peer).toBe(first.peer)
    expect((await program('other', { key })).peer).toBe(first.peer)
    expect((await program('')).peer).not.toBe(first.peer)
  })

  test('10,000 messages arrive once and in order', async () => {
    const [alice, bob] = [await program('alice'), await program('bob')]
    const got: number[] = []
    await bob.start<number>('count', ({ data }) => void got.push(data))
    const levels = await Promise.all(Array.from({ length: 10_000 }, (_, i) => alice.send(bob.peer, 'count', i)))
    expect(got).toEqual(Array.from({ length: 10_000 }, (_, i) => i))
    expect(new Set(levels)).toEqual(new Set(['handled']))
  })

  test('also when the connection is lost again and again', async () => {
    const sockets: { terminate(): void }[] = []
    class Cut extends (Ws as any) {
      constructor(...args: unknown[]) {
        super(...args)
        sockets.push(this as never)
      }
    }
    const alice = await program('alice', { WebSocket: Cut as never, retry: { min: 1, max: 5 } })
    const bob = await program('bob', { WebSocket: Cut as never, retry: { min: 1, max: 5 } })
    const resumed: unknown[] = []
    for (const node of [alice, bob]) node.on('state', ({ state, resumed: r }) => state === 'online' && resumed.push(r))
    const got: number[] = []
    await bob.start<number>('count', ({ data }) => void got.push(data))
    const sent = []
    for (let i = 0; i < 2000; i++) {
      sent.push(alice.send(bob.peer, 'count', i))
      if (i % 200 === 100) for (const socket of sockets.splice(0)) socket.terminate()
      if (i % 10 === 0) await sent.at(-10)?.catch(() => {})
    }
    expect(new Set(await Promise.all(sent))).toEqual(new Set(['handled']))
    expect(got).toEqual(Array.from({ length: 2000 }, (_, i) => i))
    expect(new Set(resumed)).toEqual(new Set([true]))
  })

  test.each(['queued', 'handled'] as const)('a full outbox is a promise that waits: %s (G-D9)', async (level) => {
    const small = await Parley.start({ connect: parley.addresses, args: ['--set', 'limits.outbox=256KiB', '--set', 'limits.maxMessage=64KiB'] })
    ending.push(() => small.stop())
    const [alice, bob] = [await program('alice', {}, small), await program('bob')]
    let settled = 0
    const sent = Array.from({ length: 100 }, (_, i) =>
      alice.send(bob.peer, 'late', { i, data: new Uint8Array(16_384) }, { level }).finally(() => settled++),
    )
    const held = level === 'queued' ? 15 : 0 // so many fit into the outbox
    await until(() => settled >= held)
    await alice.members('nothing') // the node has answered what was before
    expect(settled).toBe(held)
    const got: number[] = []
    await bob.start<{ i: number }>('late', ({ data }) => void got.push(data.i))
    expect(new Set(await Promise.all(sent))).toEqual(new Set([level]))
    await until(() => got.length >= 100)
    expect(got).toEqual(Array.from({ length: 100 }, (_, i) => i))
  })

  test('away for longer than the grace: what was under way is told, what was started is started again', async () => {
    const node = await Parley.start({ site, args: ['--set', 'gateway.grace=100ms'] })
    ending.push(() => node.stop())
    const sockets: { terminate(): void }[] = []
    let there = true
    class Cut extends (Ws as any) {
      constructor(url: string, ...args: unknown[]) {
        super(there ? url : 'ws://127.0.0.1:9/ws', ...args)
        sockets.push(this as never)
      }
    }
    const alice = await program('alice', { WebSocket: Cut as never, retry: { min: 1, max: 5 } }, node)
    const bob = await program('bob', {}, node)
    const states: unknown[] = []
    alice.on('state', ({ state, resumed }) => states.push([state, resumed]))
    await alice.start('chat', () => 'hello again')
    const room = bob.subscribe('room')
    await Promise.all([room.ready, alice.subscribe('room', { state: 'A' }).ready])
    await until(() => room.members.has(alice.peer))
    const gone = new Promise((resolve) => room.on('leave', ({ peer }) => resolve(peer)))
    const sent = alice.send('12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN', 'x', 1).catch((error) => error)
    await alice.status() // it is under way

    there = false
    for (const socket of sockets.splice(0)) socket.terminate()
    expect(await gone).toBe(alice.peer) // the session has ended
    const waits = alice.request(bob.peer, 'name')
    await bob.start('name', () => 'bob')
    there = true
    expect(await waits).toBe('bob') // what was not written yet goes out
    expect(await sent).toMatchObject({ name: 'ParleyError', code: 'session-lost' })
    expect(await bob.request(alice.peer, 'chat')).toBe('hello again')
    await until(() => room.members.get(alice.peer)?.state === 'A')
    expect(states.at(-1)).toEqual(['online', false])
  })

  test('data arrives as it was sent', async () => {
    const [alice, bob] = [await program('alice'), await program('bob')]
    await bob.start('echo', ({ data }) => data)
    const values = [null, true, 0, -1, 1.5, 2 ** 53 - 1, 'ü😀\u0000', '', [], {}, new Uint8Array(3), { a: [new Uint8Array([255])], __x: null }, 'x'.repeat(100_000)]
    for (const value of values) expect(await alice.request(bob.peer, 'echo', value)).toEqual(value)
  })

  test('errors have their codes', async () => {
    const [alice, bob] = [await program('alice'), await program('bob')]
    bob.on('error', () => {})
    await bob.start('fails', () => {
      throw new Error('not today')
    })
    await expect(alice.request(bob.peer, 'fails')).rejects.toMatchObject({ code: 'refused', message: 'not today' })
    await expect(alice.start('/parley/x', () => {})).rejects.toMatchObject({ code: 'reserved' })
    await expect(alice.send('nobody', 'x', 1)).rejects.toMatchObject({ code: 'malformed' })
    await expect(alice.send(bob.peer, 'x', new Uint8Array(9 << 20))).rejects.toMatchObject({ code: 'too-large' })
    await expect(alice.request(bob.peer, 'nobody-listens', 1, { signal: AbortSignal.timeout(50) })).rejects.toMatchObject({ code: 'timeout' })
    expect(alice.state).toBe('online')
  })

  test('a room: who is here, what is said, who goes', async () => {
    const [alice, bob] = [await program('alice'), await program('bob')]
    const hers = alice.subscribe<number, string>('room', { state: 'A' })
    const his = bob.subscribe<number, string>('room', { state: 'B' })
    await Promise.all([hers.ready, his.ready])
    await until(() => hers.members.get(bob.peer)?.state === 'B' && his.members.get(alice.peer)?.state === 'A')
    his.state = 'C'
    await until(() => hers.members.get(bob.peer)?.state === 'C')
    const heard: number[] = []
    hers.on('message', ({ data }) => heard.push(data))
    for (let i = 0; i < 500; i++) await his.publish(i)
    await until(() => heard.length === 500)
    expect(heard).toEqual(Array.from({ length: 500 }, (_, i) => i))
    await bob.close()
    await until(() => !hers.members.has(bob.peer))
  })

  test('two with one key share the peer: each gets what it started, a message is handled once', async () => {
    const [one, two, bob] = [await program('shared'), await program('shared'), await program('bob')]
    expect(two.peer).toBe(one.peer)
    const got: string[] = []
    await one.start('both', () => void got.push('one'))
    await two.start('both', () => void got.push('two'))
    await two.start('second', () => 'two')
    expect(await bob.send(one.peer, 'both', 1)).toBe('handled')
    await until(() => got.length === 2)
    expect(got.sort()).toEqual(['one', 'two'])
    expect(await bob.request(one.peer, 'second')).toBe('two')
    await one.close()
    expect(await bob.request(two.peer, 'second')).toBe('two')
  })

  test('runs from its one file: with a global WebSocket as of Node.js 22, and says what is missing without', () => {
    const folder = mkdtempSync(join(tmpdir(), 'parley-alone-'))
    ending.push(async () => rmSync(folder, { recursive: true }))
    copyFileSync(new URL('../../client/dist/parley.js', import.meta.url), join(folder, 'parley.mjs'))
    writeFileSync(
      join(folder, 'main.mjs'),
      `import { connect } from './parley.mjs'
       const node = await connect(${JSON.stringify({ url: parley.url, token: parley.token, identity: 'alone' })}).catch((e) => console.log(e.code))
       if (node) { console.log(await node.request(node.peer, 'x', 1, { signal: AbortSignal.timeout(10) }).catch((e) => e.code)); await node.close() }`,
    )
    const run = (...flags: string[]) => execFileSync(process.execPath, [...flags, join(folder, 'main.mjs')], { encoding: 'utf8' }).trim()
    expect(run('--experimental-websocket')).toBe('timeout')
    if (!('WebSocket' in globalThis)) expect(run()).toBe('unsupported')
  })

  test('everything settles when the node ends (G-D12)', async () => {
    const node = await Parley.start({ auth: 'none', site })
    const alice = await program('alice', { retry: { min: 10_000 } }, node)
    const sent = alice.send('12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN', 'x', 1).catch((e) => e.code)
    const gone = new Promise((resolve) => alice.on('state', ({ state }) => state === 'offline' && resolve(state)))
    await node.stop()
    await gone
    await alice.close()
    expect(['closed', 'unreachable', 'cancelled']).toContain(await sent)
  })
})

describe('in the browser', () => {
  test('a page, a worker and a program talk', async () => {
    const bob = await program('bob')
    await bob.start<number[]>('add', ({ data }) => data.reduce((a, b) => a + b))
    const { page: p, peer } = await page('page')
    expect(await p.evaluate((to) => (globalThis as any).node.request(to, 'add', [1, 2, 3]), bob.peer)).toBe(6)
    await p.evaluate(() => (globalThis as any).node.start('bytes', ({ data }: any) => new Uint8Array(data.map((b: number) => b + 1))))
    expect(await bob.request(peer, 'bytes', new Uint8Array([1, 2]))).toEqual(new Uint8Array([2, 3]))

    const worker = await p.evaluate(
      () =>
        new Promise<string>((resolve) => {
          new Worker('/worker.js', { type: 'module' }).onmessage = ({ data }) => resolve(data)
        }),
    )
    expect(worker).not.toBe(peer)
    expect(await bob.request(worker, 'upper', 'hello')).toBe('HELLO')
    expect(await p.evaluate((to) => (globalThis as any).node.request(to, 'upper', 'page'), worker)).toBe('PAGE')
  })

  test('a shared worker has one node for all pages of its site', async () => {
    const bob = await program('bob')
    await bob.start<number>('double', ({ data }) => data * 2)
    const { page: one } = await page('one')
    const other = await one.context().newPage()
    await other.goto(parley.url)
    const ask = (p: Page, n: number) =>
      p.evaluate(
        ([to, n]) =>
          new Promise<unknown[]>((resolve, reject) => {
            const worker = new SharedWorker('/shared.js', { type: 'module' })
            const got: unknown[] = []
            worker.onerror = reject
            worker.port.onmessage = ({ data }) => {
              if (got.push(data) === 1) worker.port.postMessage([to, 'double', n])
              else resolve(got)
            }
          }),
        [bob.peer, n] as const,
      )
    const [first, second] = [await ask(one, 4), await ask(other, 21)]
    expect(first[1]).toBe(8)
    expect(second).toEqual([first[0], 42])
    await one.close()
    expect((await ask(other, 5))[1]).toBe(10)
  })

  test('a lost connection is resumed with nothing lost', async () => {
    const { page: p, peer } = await page('page')
    await p.evaluate(() => {
      const got: number[] = []
      Object.assign(globalThis, { got })
      return (globalThis as any).node.start('count', ({ data }: any) => void got.push(data))
    })
    const bob = await program('bob')
    const sent = Array.from({ length: 300 }, (_, i) => bob.send(peer, 'count', i))
    await loseConnection(p)
    await Promise.all(sent)
    expect(await p.evaluate(() => (globalThis as any).got)).toEqual(Array.from({ length: 300 }, (_, i) => i))
  })

  test('a page that is left is gone at once', async () => {
    const { page: p, peer } = await page('leaver')
    await p.evaluate(() => (globalThis as any).node.subscribe('leaving').ready)
    const bob = await program('bob')
    const room = bob.subscribe('leaving')
    await room.ready
    await until(() => room.members.has(peer))
    await p.goto('about:blank')
    await until(() => !room.members.has(peer))
  })

  test('abuse 44: a page of v1 and a page of v2 in one room and one to one', async () => {
    const { page: p, peer } = await page('page')
    const { context } = await person(browser)
    ending.push(() => context.close())
    const old = await context.newPage()
    await old.goto(parley.link)
    await old.waitForFunction(() => 'v1' in globalThis, undefined, { polling: 50 })
    const oldPeer = await old.evaluate(async () => {
      const got: any[] = []
      const client = await (globalThis as any).v1.connect()
      await client.start('talk', (peer: string, data: any) => void got.push({ peer, data }))
      await client.subscribe('room', (peer: string, data: any) => void got.push({ peer, data }))
      Object.assign(globalThis, { client, got })
      return client.peerID
    })

    // v2 to v1: a v1 page tells no more than that it was delivered
    expect(await p.evaluate((to) => (globalThis as any).node.send(to, 'talk', { n: 1 }), oldPeer)).toBe('delivered')
    await old.waitForFunction((from) => (globalThis as any).got.some((m: any) => m.peer === from && m.data.n === 1), peer, { polling: 50 })

    // v1 to v2
    await p.evaluate(() => {
      const heard: any[] = []
      Object.assign(globalThis, { heard })
      const node = (globalThis as any).node
      const room = node.subscribe('room')
      room.on('message', (m: any) => heard.push(['room', m.from, m.data]))
      room.on('join', (m: any) => heard.push(['join', m.peer]))
      return Promise.all([room.ready.then(() => [...room.members.keys()].forEach((m) => heard.push(['join', m]))), node.start('talk', (m: any) => void heard.push(['talk', m.from, m.data]))])
    })
    await old.evaluate(([to]) => (globalThis as any).client.send(to, 'talk', { big: 'text', list: [1, 2] }), [peer])
    await old.evaluate(() => (globalThis as any).client.publish('room', { hello: 'all' }))
    const heard = (): Promise<unknown[][]> => p.evaluate(() => (globalThis as any).heard)
    for (const what of ['join', 'talk', 'room']) await until(async () => (await heard()).some(([kind]) => kind === what))
    expect(await heard()).toEqual(
      expect.arrayContaining([['join', oldPeer], ['talk', oldPeer, { big: 'text', list: [1, 2] }], ['room', oldPeer, { hello: 'all' }]]),
    )
  })

  test('abuse 1: a page of another origin is not let in, and is told so', async () => {
    const other = await Parley.start({ auth: 'none', site })
    ending.push(() => other.stop())
    const { page: p } = await page('page')
    const code = await p.evaluate(
      (url) => (globalThis as any).parley.connect({ url }).then(() => 'connected', (e: any) => e.code),
      other.url,
    )
    expect(['forbidden', 'unreachable']).toContain(code) // a browser does not say which
  })
})

/** Waits for a condition, looking at it every few milliseconds. */
async function until(condition: () => unknown): Promise<void> {
  await vi.waitUntil(condition, { timeout: 60_000, interval: 10 })
}
