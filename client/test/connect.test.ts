import { describe, expect, test, vi } from 'vitest'
import { connect, ParleyError } from '../src/index.js'
import * as f from '../src/frames.js'
import { nodeUrl, isLocal } from '../src/socket.js'
import { setup, states, watch } from './pages.js'

const world = setup()

describe('connect', () => {
  test('offers the subprotocol, says hello, and knows what it was told', async () => {
    const page = await world.page('bob')
    expect(world.node.dials[0]).toMatchObject({ url: 'ws://node/ws', protocols: ['parley.v2'] })
    expect(world.frames(f.HELLO)).toEqual([[{ v: 2, identity: 'bob' }]])
    expect(page).toMatchObject({ peer: 'peer-bob', state: 'online', version: 'fake' })
    expect(page.limits.requests).toBe(1024)
  })

  test('a key instead of an identity', async () => {
    await world.page('x', { key: 'SECRET' })
    expect(world.frames(f.HELLO)).toEqual([[{ v: 2, key: 'SECRET' }]])
  })

  test('a token goes into the header, and is asked for at every connect', async () => {
    let n = 0
    await world.page('a', { token: () => `t${++n}` })
    world.node.cut()
    await world.pass(200)
    expect(world.node.dials.map((d) => d.options)).toEqual([
      { headers: { Authorization: 'Bearer t1' } },
      { headers: { Authorization: 'Bearer t2' } },
    ])
  })

  test('rejects when no node answers', async () => {
    world.node.down = true
    await expect(world.page()).rejects.toMatchObject({ name: 'ParleyError', code: 'unreachable' })
    expect(vi.getTimerCount()).toBe(0)
  })

  test('waits for the node where told to', async () => {
    world.node.down = true
    const seen: string[] = []
    const page = watch(world.page('a', { wait: true, onState: (s) => seen.push(s.state) }))
    await world.pass(3000)
    expect(page.now).toBe('pending')
    world.node.down = false
    await world.pass(5000)
    expect(page.now).toMatchObject({ state: 'online' })
    expect(seen.slice(-2)).toEqual(['offline', 'online'])
  })

  test('gives up with its signal, before and during', async () => {
    await expect(world.page('a', { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'cancelled' })
    world.node.down = true
    const controller = new AbortController()
    const page = watch(world.page('a', { wait: true, signal: controller.signal }))
    await world.pass(1000)
    controller.abort()
    await world.pass()
    expect(page.now).toBe('cancelled')
    expect(vi.getTimerCount()).toBe(0)
  })

  test('the signal of connect is for connecting only', async () => {
    const controller = new AbortController()
    const page = await world.page('a', { signal: controller.signal })
    controller.abort()
    await world.pass(1000)
    expect(page.state).toBe('online')
  })

  test('a node that never answers the hello is given up', async () => {
    world.node.paused = true
    const page = watch(world.page())
    await world.pass(10_000)
    expect(page.now).toBe('unreachable')
  })

  test.each([
    [1002, 'closed'],
    [1008, 'forbidden'],
    [1013, 'limit'],
  ])('closed with %i before the welcome: %s', async (close, code) => {
    world.node.accept = (wire) => wire.close(close)
    await expect(world.page()).rejects.toMatchObject({ code })
  })

  test('the reason of a bye', async () => {
    const { encode } = await import('../src/cbor.js')
    world.node.accept = (wire) => {
      wire.send(encode([f.BYE, 'unsupported', 'version 3 only']))
      wire.close(1002)
    }
    await expect(world.page()).rejects.toMatchObject({ code: 'unsupported', message: 'version 3 only' })
  })

  test.each([
    ['no CBOR', [0xff]],
    ['a frame before the welcome', [0x83, 17, 1, 0xf6]],
    ['a welcome of another version', [0x82, 1, 0xa1, 0x61, 0x76, 3]],
    ['a welcome that is no map', [0x82, 1, 0xf6]],
  ])('%s ends it', async (_, bytes) => {
    world.node.accept = (wire) => wire.send(new Uint8Array(bytes))
    const error = await world.page().catch((e) => e)
    expect(['malformed', 'unsupported']).toContain(error.code)
  })

  test('outside of a page the url is needed', async () => {
    await expect(connect()).rejects.toMatchObject({ code: 'malformed' })
    expect(new ParleyError('limit').message).toBe('limit')
  })
})

describe('a lost connection', () => {
  test('is taken up again, with a back-off that doubles up to a limit', async () => {
    const page = await world.page('a', { retry: { min: 100, max: 1000 } })
    const waits: number[] = []
    page.on('state', (s) => s.retryIn !== undefined && waits.push(s.retryIn))
    world.node.down = true
    world.node.cut()
    await world.pass(10_000)
    for (const [i, wait] of waits.entries()) {
      const step = Math.min(1000, 100 * 2 ** i)
      expect(wait).toBeGreaterThanOrEqual(step / 2)
      expect(wait).toBeLessThanOrEqual(step)
    }
    expect(waits.length).toBeGreaterThan(8)
    world.node.down = false
    await world.pass(1000)
    expect(page.state).toBe('online')
  })

  test('a node that says when waits so long', async () => {
    const { encode } = await import('../src/cbor.js')
    const page = await world.page()
    const [session] = world.node.sessions.values()
    session!.wire!.send(encode([f.BYE, 'limit', 'busy', 7000]))
    session!.wire!.close(1013)
    await world.pass(6900)
    expect(page.state).toBe('offline')
    await world.pass(200)
    expect(page.state).toBe('online')
  })

  test.each([1000, 1002, 1008])('close %i is the end', async (code) => {
    const page = await world.page()
    const seen = states(page)
    world.node.cut(code)
    await world.pass(60_000)
    expect(page.state).toBe('closed')
    expect(seen).toHaveLength(1)
    expect(world.node.dials).toHaveLength(1)
  })

  test.each([1001, 1006, 1011, 1013])('close %i is not', async (code) => {
    const page = await world.page()
    world.node.cut(code)
    await world.pass(1000)
    expect(page.state).toBe('online')
  })

  test('a silent node is asked after 25 s and given up 10 s later', async () => {
    const page = await world.page()
    const seen = states(page)
    await world.pass(60_000)
    expect(world.frames(f.PING).length).toBe(2)
    expect(seen).toEqual([])
    world.node.paused = true
    await world.pass(36_000)
    expect(seen[0]).toBe('offline: unreachable')
    world.node.resume()
    await world.pass(20_000)
    expect(page.state).toBe('online')
  })

  test('a ping is answered', async () => {
    const { encode } = await import('../src/cbor.js')
    await world.page()
    const [session] = world.node.sessions.values()
    session!.wire!.send(encode([f.PING, 42]))
    await world.pass()
    expect(world.frames(f.PONG)).toEqual([[42]])
  })

  test('a key that nobody keeps is kept here, so a new session is the same peer', async () => {
    const page = await world.page('')
    const { peer } = page
    await world.pass()
    world.node.forget()
    world.node.cut()
    await world.pass(1000)
    expect(world.frames(f.HELLO).at(-1)![0]).toMatchObject({ key: `key-of-${peer}` })
  })
})

describe('why there is no connection, as far as a page can know', () => {
  /** A page at an origin, whose node answers ordinary requests with a status. */
  function pretend(origin: string, status: number, permission?: string): void {
    vi.stubGlobal('location', new URL(origin))
    vi.stubGlobal('fetch', async () => ({ status }))
    vi.stubGlobal('isSecureContext', origin.startsWith('https'))
    vi.stubGlobal('navigator', {
      permissions: {
        async query({ name }: { name: string }) {
          if (name !== 'loopback-network' || !permission) throw new TypeError('no such permission')
          return { state: permission }
        },
      },
    })
    world.node.down = true
  }
  const failure = (url?: string) => connect({ url, WebSocket: world.node.WebSocket }).catch((error) => error)

  test.each([
    [401, 'unauthorized'],
    [429, 'unauthorized'],
    [403, 'forbidden'],
    [421, 'forbidden'],
    [503, 'limit'],
    [426, 'unreachable'],
  ])('the node answers %i: %s', async (status, code) => {
    pretend('http://localhost:10000', status)
    expect(await failure()).toMatchObject({ code })
    expect(world.node.dials[0]!.url).toBe('ws://localhost:10000/ws')
    vi.unstubAllGlobals()
  })

  test.each([
    ['https://app.example', 'denied', 'ws://localhost:1', 'network-blocked'],
    ['https://app.example', 'granted', 'ws://localhost:1', 'unreachable'],
    ['https://app.example', undefined, 'ws://localhost:1', 'unreachable'],
    ['http://app.example', undefined, 'ws://192.168.1.2', 'network-blocked'],
    ['https://app.example', 'denied', 'wss://node.example', 'unreachable'],
    ['http://localhost:5173', 'denied', 'ws://localhost:1', 'unreachable'],
  ])('a page at %s, permission %s, to %s: %s', async (origin, permission, url, code) => {
    pretend(origin, 0, permission)
    expect(await failure(url)).toMatchObject({ code })
    vi.unstubAllGlobals()
  })

  test('ws:// from a page that may not: blocked', async () => {
    class Refusing {
      constructor() {
        throw new DOMException('mixed content', 'SecurityError')
      }
    }
    const error = await connect({ url: 'ws://node.example', WebSocket: Refusing as never }).catch((e) => e)
    expect(error).toMatchObject({ code: 'network-blocked', message: 'mixed content' })
  })
})

describe('addresses', () => {
  test.each([
    ['ws://localhost:1/ws', 'ws://localhost:1/ws'],
    ['http://localhost:1', 'ws://localhost:1/ws'],
    ['https://node.example/x', 'wss://node.example/x'],
  ])('%s is %s', (given, url) => expect(nodeUrl(given).href).toBe(url))

  test.each(['localhost', '127.0.0.1', '127.9.9.9', '[::1]', '10.1.2.3', '192.168.0.9', '172.16.0.1', 'nas.local', '[fd00::1]'])(
    '%s is local',
    (host) => expect(isLocal(host)).toBe(true),
  )
  test.each(['127.evil.com', 'localhost.evil.com', '172.32.0.1', 'example.com', '8.8.8.8'])('%s is not', (host) =>
    expect(isLocal(host)).toBe(false),
  )
})
