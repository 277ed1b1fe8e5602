import { describe, expect, test, vi } from 'vitest'
import type { Message } from '../src/api.js'
import { ParleyError, codes } from '../src/errors.js'
import * as f from '../src/frames.js'
import { setup, take, watch } from './pages.js'

const world = setup()

async function two() {
  return { alice: await world.page('alice'), bob: await world.page('bob') }
}

describe('send', () => {
  test('reaches the handler, and is settled when the handler returned', async () => {
    const { alice, bob } = await two()
    const got: Message[] = []
    let done = () => {}
    await bob.start('chat', (message) => {
      got.push(message)
      return new Promise<void>((resolve) => (done = resolve))
    })
    const sent = watch(alice.send('peer-bob', 'chat', { text: 'hi', bytes: new Uint8Array([1]) }))
    await world.pass()
    expect(got).toEqual([{ from: 'peer-alice', protocol: 'chat', data: { text: 'hi', bytes: new Uint8Array([1]) }, wantsReply: false }])
    expect(sent.now).toBe('pending')
    done()
    await world.pass()
    expect(sent.now).toBe('handled')
  })

  test.each([
    ['queued', 0],
    ['delivered', 1],
  ] as const)('level %s', async (level, n) => {
    const { alice, bob } = await two()
    await bob.start('chat', () => new Promise(() => {}))
    expect(await alice.send('peer-bob', 'chat', 1, { level })).toBe(level)
    expect(world.frames(f.SEND)[0]).toEqual([expect.any(Number), 'peer-bob', 'chat', 1, n, 0])
  })

  test('what cannot be sent rejects, and nothing was sent', async () => {
    const { alice } = await two()
    await expect(alice.send('peer-bob', 'chat', () => 1)).rejects.toMatchObject({ code: 'malformed' })
    await expect(alice.send('peer-bob', 'chat', 1, { level: 'soon' as never })).rejects.toMatchObject({ code: 'malformed' })
    expect(world.frames(f.SEND)).toEqual([])
  })

  test('the data is taken when the call is made', async () => {
    const { alice, bob } = await two()
    const got = vi.fn()
    await bob.start('chat', ({ data }) => got(data))
    const data = { n: 1 }
    const sent = alice.send('peer-bob', 'chat', data)
    data.n = 2
    await sent
    expect(got).toHaveBeenCalledWith({ n: 1 })
  })

  test('an error of the node has its code, its text and when to try again', async () => {
    const { alice } = await two()
    const sent = watch(alice.send('peer-bob', 'chat', 1))
    await world.pass()
    const [session] = world.node.sessions.values()
    session!.write([f.ERROR, world.frames(f.SEND)[0]![0], 'limit', 'slow down', 500])
    await world.pass()
    expect(sent.error).toMatchObject({ code: 'limit', message: 'slow down', retryAfter: 500 })
  })

  test.each(codes)('code %s arrives as a ParleyError', async (code) => {
    const { alice } = await two()
    world.node.fail.set('status', code)
    const error = await alice.status().catch((e: unknown) => e)
    expect(error).toBeInstanceOf(ParleyError)
    expect(error).toMatchObject({ name: 'ParleyError', code, message: 'status fails' })
  })

  test('an unknown code is internal', async () => {
    const { alice } = await two()
    world.node.fail.set('status', 'from-the-future')
    await expect(alice.status()).rejects.toMatchObject({ code: 'internal' })
  })
})

describe('request', () => {
  test('gives what the handler returned', async () => {
    const { alice, bob } = await two()
    await bob.start<number[]>('add', async ({ data, wantsReply }) => wantsReply && data.reduce((a, b) => a + b))
    expect(await alice.request('peer-bob', 'add', [1, 2])).toBe(3)
    await bob.start('nothing', () => undefined)
    expect(await alice.request('peer-bob', 'nothing')).toBe(null)
  })

  test('a handler that throws refuses, and the page hears of it', async () => {
    const { alice, bob } = await two()
    const errors: unknown[] = []
    bob.on('error', (error) => errors.push(error))
    const boom = new Error('no such thing')
    await bob.start('x', () => {
      throw boom
    })
    await expect(alice.request('peer-bob', 'x')).rejects.toMatchObject({ code: 'refused', message: 'no such thing' })
    await expect(alice.send('peer-bob', 'x', 1)).rejects.toMatchObject({ code: 'refused' })
    expect(errors).toEqual([boom, boom])
  })

  test('a reply that cannot be sent refuses', async () => {
    const { alice, bob } = await two()
    bob.on('error', () => {})
    await bob.start('x', () => Symbol('no'))
    await expect(alice.request('peer-bob', 'x')).rejects.toMatchObject({ code: 'refused' })
  })

  test('an error that nobody takes is reported', async () => {
    const { alice, bob } = await two()
    const log = vi.spyOn(console, 'error').mockImplementation(() => {})
    await bob.start('x', () => Promise.reject(new Error('boom')))
    await expect(alice.request('peer-bob', 'x')).rejects.toMatchObject({ code: 'refused' })
    expect(log).toHaveBeenCalledWith(new Error('boom'))
    log.mockRestore()
  })

  test('G-D12: a handler may await any call, even to the one who asks', async () => {
    const { alice, bob } = await two()
    await alice.start('name', () => 'alice')
    await bob.start('greet', async ({ from }) => `hello ${await bob.request(from, 'name')}`)
    expect(await alice.request('peer-bob', 'greet')).toBe('hello alice')
  })
})

describe('handlers', () => {
  test('run in order in a conversation, one at a time, and beside others', async () => {
    const { alice, bob } = await two()
    const carol = await world.page('carol')
    const order: string[] = []
    const open: (() => void)[] = []
    await bob.start('chat', async ({ from, data }) => {
      order.push(`${from.at(5)}${data} begins`)
      await new Promise<void>((resolve) => open.push(resolve))
      order.push(`${from.at(5)}${data} ends`)
    })
    watch(alice.send('peer-bob', 'chat', 1))
    watch(alice.send('peer-bob', 'chat', 2))
    await world.pass()
    watch(carol.send('peer-bob', 'chat', 3))
    await world.pass()
    expect(order).toEqual(['a1 begins', 'c3 begins'])
    open[0]!()
    await world.pass()
    expect(order).toEqual(['a1 begins', 'c3 begins', 'a1 ends', 'a2 begins'])
  })

  test('another protocol of the same peer is not held up', async () => {
    const { alice, bob } = await two()
    await bob.start('hangs', () => new Promise(() => {}))
    await bob.start('works', () => 'yes')
    watch(alice.send('peer-bob', 'hangs', 1))
    expect(await alice.request('peer-bob', 'works')).toBe('yes')
  })

  test('start twice, stop what was not started', async () => {
    const { bob } = await two()
    await bob.start('chat', () => {})
    await expect(bob.start('chat', () => {})).rejects.toMatchObject({ code: 'already-started' })
    await bob.stop('chat')
    await expect(bob.stop('chat')).rejects.toMatchObject({ code: 'not-started' })
    await bob.start('chat', () => {})
    expect(world.frames(f.REQUEST).map(([, method]) => method)).toEqual(['start', 'stop', 'start'])
  })

  test('a start that fails can be tried again', async () => {
    const { bob } = await two()
    world.node.fail.set('start', 'reserved')
    await expect(bob.start('/x/1', () => {})).rejects.toMatchObject({ code: 'reserved' })
    world.node.fail.clear()
    await bob.start('/x/1', () => {})
  })

  test('stop refuses what was not begun', async () => {
    const { alice, bob } = await two()
    await bob.start('chat', () => new Promise(() => {}))
    const sent = [1, 2, 3].map((n) => watch(alice.send('peer-bob', 'chat', n)))
    await world.pass()
    await bob.stop('chat')
    await world.pass()
    expect(sent.map((s) => s.now)).toEqual(['pending', 'not-started', 'not-started'])
  })

  test('a signal stops', async () => {
    const { bob } = await two()
    const controller = new AbortController()
    await bob.start('chat', () => {}, { signal: controller.signal })
    controller.abort()
    await world.pass()
    expect([...world.node.sessions.values()].some((s) => s.protocols.has('chat'))).toBe(false)
    await bob.start('chat', () => {})
  })
})

describe('listen', () => {
  test('gives messages one by one, and settles each when the next is asked for', async () => {
    const { alice, bob } = await two()
    const loop = bob.listen<number>('chat')
    const sent = [1, 2].map((n) => watch(alice.send('peer-bob', 'chat', n)))
    expect((await loop.next()).value.data).toBe(1)
    await world.pass()
    expect(sent.map((s) => s.now)).toEqual(['pending', 'pending'])
    expect((await loop.next()).value.data).toBe(2)
    await world.pass()
    expect(sent.map((s) => s.now)).toEqual(['handled', 'pending'])
    await loop.return!()
    await world.pass()
    expect(sent[1]!.now).toBe('handled')
    expect([...world.node.sessions.values()].some((s) => s.protocols.has('chat'))).toBe(false)
  })

  test('replies and refuses', async () => {
    const { alice, bob } = await two()
    const asked = [1, 2, 3].map((n) => watch(alice.request('peer-bob', 'double', n)))
    for (const message of await take(bob.listen<number>('double'), 3).catch(() => [])) void message
    await world.pass()
    expect(asked.map((a) => a.now)).toEqual(['refused', 'refused', 'refused'])

    const loop = bob.listen<number>('double')
    const again = [1, 2].map((n) => watch(alice.request('peer-bob', 'double', n)))
    ;(await loop.next()).value.reply(2)
    ;(await loop.next()).value.refuse('odd')
    await world.pass()
    expect(again.map((a) => a.now)).toEqual([2, 'refused'])
    expect(again[1]!.error.message).toBe('odd')
  })

  test('a protocol that cannot be started rejects in the loop', async () => {
    const { bob } = await two()
    world.node.fail.set('start', 'reserved')
    await expect(take(bob.listen('/x/1'), 1)).rejects.toMatchObject({ code: 'reserved' })
  })

  test('a signal ends the loop quietly', async () => {
    const { bob } = await two()
    const controller = new AbortController()
    const loop = take(bob.listen('chat', { signal: controller.signal }), 1)
    await world.pass()
    controller.abort()
    expect(await loop).toEqual([])
  })
})

describe('abort', () => {
  test('what was written is cancelled, and rejects at once', async () => {
    const { alice } = await two()
    const controller = new AbortController()
    const sent = watch(alice.send('peer-bob', 'chat', 1, { signal: controller.signal }))
    await world.pass()
    controller.abort('changed my mind')
    await world.pass()
    expect(sent.error).toMatchObject({ code: 'cancelled', cause: 'changed my mind' })
    expect(world.frames(f.CANCEL)).toEqual([[world.frames(f.SEND)[0]![0]]])
    expect(world.node.waiting).toEqual([])
  })

  test('what waits is never written', async () => {
    const { alice } = await two()
    world.node.down = true
    world.node.cut()
    await world.pass()
    const controller = new AbortController()
    const sent = watch(alice.send('peer-bob', 'chat', 1, { signal: controller.signal }))
    controller.abort()
    world.node.down = false
    await world.pass(1000)
    expect(sent.now).toBe('cancelled')
    expect(world.frames(f.SEND)).toEqual([])
    expect(world.frames(f.CANCEL)).toEqual([])
  })

  test('a time limit rejects with timeout', async () => {
    const { alice } = await two()
    const controller = new AbortController()
    const sent = watch(alice.request('peer-bob', 'chat', 1, { signal: controller.signal }))
    controller.abort(new DOMException('too long', 'TimeoutError'))
    await world.pass()
    expect(sent.now).toBe('timeout')
  })

  test('every call takes a signal that is aborted already', async () => {
    const { alice } = await two()
    const before = world.node.seen.length
    const gone = { signal: AbortSignal.abort() }
    const calls = [
      alice.start('a', () => {}, gone),
      alice.send('p', 'a', 1, gone),
      alice.request('p', 'a', 1, gone),
      alice.publish('t', 1, gone),
      alice.members('t', gone),
      alice.path('p', gone),
      alice.addPeers(['p'], gone),
      alice.removePeers(['p'], gone),
      alice.exportKey(gone),
      alice.status(gone),
      alice.subscribe('t', gone).ready,
    ]
    for (const call of calls) await expect(call).rejects.toMatchObject({ code: 'cancelled' })
    expect(world.frames(f.SEND)).toEqual([])
    expect(world.node.seen.slice(before).filter(([k, , method]) => k === f.REQUEST && method !== 'subscribe' && method !== 'unsubscribe')).toEqual([])
  })

  test('a listener of the signal does not outlive its call', async () => {
    const { alice, bob } = await two()
    await bob.start('chat', () => 1)
    const { signal } = new AbortController()
    const added = vi.spyOn(signal, 'addEventListener')
    const removed = vi.spyOn(signal, 'removeEventListener')
    await alice.request('peer-bob', 'chat', 1, { signal })
    expect(removed).toHaveBeenCalledTimes(added.mock.calls.length)
  })
})

describe('the network', () => {
  test('path, peers, key and status', async () => {
    const { alice } = await two()
    expect(await alice.path('peer-bob')).toMatchObject({ peer: 'peer-bob', path: 'local' })
    await alice.addPeers(new Set(['peer-bob']), { addresses: ['/ip4/127.0.0.1/tcp/1'] })
    await alice.removePeers(['peer-bob'])
    expect(world.frames(f.REQUEST).slice(-2).map(([, ...rest]) => rest)).toEqual([
      ['addPeers', { peers: ['peer-bob'], addresses: ['/ip4/127.0.0.1/tcp/1'] }],
      ['removePeers', { peers: ['peer-bob'] }],
    ])
    expect(await alice.exportKey()).toBe('key-of-peer-alice')
    expect(await alice.status()).toMatchObject({ peers: 2 })
  })

  test('a path that changed', async () => {
    const { alice } = await two()
    const seen = vi.fn()
    alice.addEventListener('path', (event) => seen(event.detail.path))
    const [session] = world.node.sessions.values()
    session!.write([f.EVENT, 'path', { peer: 'peer-bob', path: 'relay', address: '', rtt: 3, tried: [] }])
    session!.write([f.EVENT, 'news', 1])
    session!.write([99, 'a kind of the future'])
    await world.pass()
    expect(seen.mock.calls).toEqual([['relay']])
    expect(alice.state).toBe('online')
  })
})
