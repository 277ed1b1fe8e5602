import { describe, expect, test, vi } from 'vitest'
import * as f from '../src/frames.js'
import { setup, states, watch } from './pages.js'

const world = setup()

async function two() {
  return { alice: await world.page('alice'), bob: await world.page('bob') }
}

/** Takes the sockets away, and lets none open until `back`. */
async function away(): Promise<void> {
  world.node.down = true
  world.node.cut()
  await world.pass()
}

async function back(): Promise<void> {
  world.node.down = false
  await world.pass(6000)
}

describe('resume', () => {
  test('repeats what the other has not: nothing lost, nothing doubled, in order', async () => {
    const { alice, bob } = await two()
    const got: number[] = []
    await bob.start<number>('chat', ({ data }) => void got.push(data))
    const sent = []
    for (let i = 0; i < 200; i++) {
      sent.push(watch(alice.send('peer-bob', 'chat', i)))
      if (i % 20 === 19) world.node.cut() // in the middle of whatever is under way
      if (i % 7 === 0) await world.pass(i)
    }
    await world.pass(6000)
    expect(got).toEqual(Array.from({ length: 200 }, (_, i) => i))
    expect(new Set(sent.map((s) => s.now))).toEqual(new Set(['handled']))
    expect(world.frames(f.HELLO).filter(([hello]) => hello.session).length).toBeGreaterThan(10)
  })

  test('says so', async () => {
    const { alice } = await two()
    const seen = states(alice)
    world.node.cut()
    await world.pass(1000)
    expect(seen).toEqual(['offline: closed', 'resumed'])
  })

  test('what a handler returns while offline arrives', async () => {
    const { alice, bob } = await two()
    let answer = (_: number) => {}
    await bob.start('ask', () => new Promise((resolve) => (answer = resolve)))
    const asked = watch(alice.request('peer-bob', 'ask'))
    await world.pass()
    await away()
    answer(42)
    await world.pass(100)
    await back()
    expect(asked.now).toBe(42)
  })

  test('frames are acknowledged after 32, and after 50 ms', async () => {
    const { alice, bob } = await two()
    world.node.seen = []
    const [session] = world.node.sessions.values()
    const told = () => Math.max(0, ...world.frames(f.RECEIVED).map(([n]) => n))
    for (let i = 0; i < 31; i++) session!.write([99])
    await world.pass()
    expect(told()).toBe(0)
    session!.write([99])
    await world.pass()
    expect(told()).toBe(32)
    session!.write([99])
    await world.pass(49)
    expect(told()).toBe(32)
    await world.pass(2)
    expect(told()).toBe(33)
    expect(bob.state).toBe(alice.state)
  })

  test('a page that becomes visible looks at once', async () => {
    const listeners = new Map<string, () => void>()
    const document = Object.assign(new EventTarget(), { visibilityState: 'visible' })
    vi.stubGlobal('document', document)
    vi.stubGlobal('addEventListener', (type: string, listener: () => void) => listeners.set(type, listener))
    vi.stubGlobal('removeEventListener', (type: string) => listeners.delete(type))
    const alice = await world.page('alice', { retry: { min: 60_000, max: 60_000 } })
    world.node.cut()
    await world.pass(1000)
    expect(alice.state).toBe('offline')
    world.node.down = true
    document.dispatchEvent(new Event('visibilitychange'))
    document.dispatchEvent(new Event('visibilitychange')) // while it looks, and finds nothing yet
    const { length } = world.node.dials
    while (world.node.dials.length === length) await Promise.resolve()
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve))
    expect(alice.state).toBe('offline')
    world.node.down = false
    await world.pass(1)
    expect(alice.state).toBe('online')
    await alice.close()
    expect(listeners.size).toBe(0)
    vi.unstubAllGlobals()
  })
})

describe('the offline queue', () => {
  test('what is sent while offline waits, and goes out in order', async () => {
    const { alice, bob } = await two()
    const got: unknown[] = []
    await bob.start('chat', ({ data }) => void got.push(data))
    await away()
    const sent = [1, 2, 3].map((n) => watch(alice.send('peer-bob', 'chat', n)))
    const published = watch(alice.publish('room', 1))
    await world.pass(2000)
    expect([...sent, published].map((s) => s.now)).toEqual(['pending', 'pending', 'pending', 'pending'])
    await back()
    expect(got).toEqual([1, 2, 3])
    expect([...sent, published].map((s) => s.now)).toEqual(['handled', 'handled', 'handled', undefined])
  })

  test('is bounded in bytes, and says so', async () => {
    const alice = await world.page('alice', { maxQueue: 12_800 })
    await away()
    const sent = Array.from({ length: 11 }, () => watch(alice.send('peer-bob', 'chat', 'x'.repeat(1000), { level: 'queued' })))
    await world.pass()
    expect(sent.map((s) => s.now).slice(0, 9)).toEqual(Array(9).fill('pending'))
    expect(sent.at(-1)!.now).toBe('queue-full')
    await back()
    expect(sent[0]!.now).toBe('queued')
  })
})

describe('a session that is over', () => {
  test('what was written rejects with session-lost; what was not goes out', async () => {
    const { alice, bob } = await two()
    await bob.start('chat', () => {})
    const under = watch(alice.send('peer-carol', 'chat', 'nobody there'))
    await world.pass()
    await away()
    const waiting = watch(alice.send('peer-bob', 'chat', 'later'))
    world.node.forget()
    await back()
    expect(under.now).toBe('session-lost')
    expect(waiting.now).toBe('handled')
  })

  test('protocols and topics are taken up again, with the state', async () => {
    const { alice, bob } = await two()
    const got: unknown[] = []
    await bob.start('chat', ({ data }) => void got.push(data))
    const room = bob.subscribe('room', { state: { name: 'Bob' } })
    room.on('message', ({ data }) => got.push(data))
    await room.ready
    const seen = states(bob)
    await away()
    world.node.forget()
    await back()
    expect(seen.at(-1)).toBe('new')
    await alice.send('peer-bob', 'chat', 'a message')
    await alice.publish('room', 'a publication')
    await world.pass()
    expect(got).toEqual(['a message', 'a publication'])
    expect(await alice.members('room')).toEqual([{ peer: 'peer-bob', state: { name: 'Bob' } }])
  })

  test('who came and went meanwhile is told as differences', async () => {
    const { alice, bob } = await two()
    const carol = await world.page('carol')
    const room = alice.subscribe<unknown, number>('room')
    await room.ready
    await bob.subscribe('room', { state: 1 }).ready
    await carol.subscribe('room', { state: 1 }).ready
    await world.pass()
    const seen: unknown[] = []
    for (const type of ['join', 'leave', 'change'] as const) room.on(type, ({ peer, state }) => seen.push([type, peer, state]))
    const [session] = world.node.sessions.values() // of alice
    world.node.down = true
    for (const socket of world.node.sockets) if (socket) socket.drop(1006)
    session!.end()
    world.node.topics.set('room', new Map([['peer-bob', 2], ['peer-dave', 7]]))
    await back()
    expect(seen).toEqual(expect.arrayContaining([['leave', 'peer-carol', 1], ['change', 'peer-bob', 2], ['join', 'peer-dave', 7]]))
    expect(room.members.get('peer-dave')).toEqual({ peer: 'peer-dave', state: 7 })
  })

  test('who came and went meanwhile is told, too, where the own state was changed meanwhile', async () => {
    const { alice, bob } = await two()
    const room = alice.subscribe<unknown, number>('room', { state: 1 })
    await room.ready
    await bob.subscribe('room', { state: 1 }).ready
    await world.pass()
    expect([...room.members.keys()]).toEqual(['peer-bob'])
    const seen: unknown[] = []
    for (const type of ['join', 'leave', 'change'] as const) room.on(type, ({ peer, state }) => seen.push([type, peer, state]))
    await away()
    room.state = 2
    await bob.close()
    world.node.forget()
    world.node.topics.set('room', new Map([['peer-dave', 7]]))
    await back()
    expect(world.node.topics.get('room')!.get('peer-alice')).toBe(2)
    expect(seen).toEqual([['leave', 'peer-bob', 1], ['join', 'peer-dave', 7]])
    expect([...room.members.keys()]).toEqual(['peer-dave'])
  })

  test('what was stopped meanwhile is stopped: a new session knows nothing of it', async () => {
    const { bob } = await two()
    await bob.start('chat', () => {})
    await away()
    const stopped = watch(bob.stop('chat'))
    world.node.forget()
    await back()
    expect(stopped.now).toBe(undefined)
    await bob.start('chat', () => {})
  })

  test('a start and a question that were under way are repeated', async () => {
    const { bob } = await two()
    world.node.paused = true
    const started = watch(bob.start('chat', () => {}))
    const asked = watch(bob.path('peer-alice'))
    await world.pass()
    world.node.cut()
    world.node.forget()
    world.node.resume()
    await world.pass(6000)
    expect(started.now).toBe(undefined)
    expect(asked.now).toMatchObject({ path: 'local' })
    expect([...world.node.sessions.values()].some((s) => s.peer === 'peer-bob' && s.protocols.has('chat'))).toBe(true)
  })

  test('deliveries that were not begun are dropped: their senders were told', async () => {
    const { alice, bob } = await two()
    const got: unknown[] = []
    let open = () => {}
    await bob.start('chat', ({ data }) => {
      got.push(data)
      return new Promise<void>((resolve) => (open = resolve))
    })
    const sent = [1, 2].map((n) => watch(alice.send('peer-bob', 'chat', n)))
    await world.pass()
    for (const session of world.node.sessions.values()) if (session.peer === 'peer-bob') session.end()
    world.node.cut()
    await world.pass(1000)
    expect(sent.map((s) => s.now)).toEqual(['closed', 'closed'])
    const before = world.node.seen.length
    open()
    await world.pass()
    expect(got).toEqual([1])
    expect(world.node.seen.slice(before).filter(([kind]) => kind === f.HANDLED)).toEqual([])
  })

  test('what cannot be taken up again is told', async () => {
    const { bob } = await two()
    const errors: any[] = []
    bob.on('error', (error) => errors.push(error))
    await bob.start('chat', () => {})
    world.node.fail.set('start', 'limit')
    world.node.forget()
    world.node.cut()
    await world.pass(1000)
    expect(errors).toMatchObject([{ code: 'limit' }])
    await expect(bob.stop('chat')).rejects.toMatchObject({ code: 'not-started' })
  })
})

describe('close', () => {
  test('settles every call, ends every loop, says goodbye, and leaves no timer (G-D12)', async () => {
    const { alice } = await two()
    const room = alice.subscribe('room')
    await room.ready
    const under = watch(alice.send('peer-bob', 'chat', 1))
    await world.pass()
    const loops = [watch(room[Symbol.asyncIterator]().next()), watch(alice.listen('x').next())]
    await world.pass()
    await alice.close()
    await world.pass()
    expect(under.now).toBe('closed')
    expect(loops.map((l) => (l.now as IteratorResult<unknown>).done)).toEqual([true, true])
    expect(alice.state).toBe('closed')
    expect(world.frames(f.BYE)).toEqual([['closed', '']])
    await expect(alice.send('peer-bob', 'chat', 1)).rejects.toMatchObject({ code: 'closed' })
    await expect(alice.start('y', () => {})).rejects.toMatchObject({ code: 'closed' })
    await expect(alice.subscribe('z').ready).rejects.toMatchObject({ code: 'closed' })
    await alice.close()
  })

  test('while offline settles what waits', async () => {
    const { alice } = await two()
    await away()
    const sent = watch(alice.send('peer-bob', 'chat', 1))
    const started = watch(alice.start('chat', () => {}))
    await alice.close()
    await world.pass(1000)
    expect([sent.now, started.now]).toEqual(['closed', 'closed'])
  })

  test('by the node for good rejects with its reason, loops too', async () => {
    const { alice } = await two()
    const sent = watch(alice.send('peer-bob', 'chat', 1))
    const loop = watch(alice.listen('x').next())
    await world.pass()
    world.node.cut(1008)
    await world.pass()
    expect([sent.now, loop.now]).toEqual(['forbidden', 'forbidden'])
  })

  test('await using closes', async () => {
    const alice = await world.page()
    await alice[Symbol.asyncDispose]()
    expect(alice.state).toBe('closed')
  })
})
