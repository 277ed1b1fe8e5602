import { describe, expect, test } from 'vitest'
import type { Room } from '../src/api.js'
import * as f from '../src/frames.js'
import { setup, take, watch } from './pages.js'

const world = setup()

async function two() {
  return { alice: await world.page('alice'), bob: await world.page('bob') }
}

describe('publications', () => {
  test('reach loops and callbacks, the own ones included', async () => {
    const { alice, bob } = await two()
    const room = alice.subscribe<number>('room')
    const heard: number[] = []
    room.on('message', ({ data }) => heard.push(data))
    const loop = take(room, 2)
    await room.ready
    await bob.publish('room', 1)
    await room.publish(2)
    expect(await loop).toEqual([
      { topic: 'room', from: 'peer-bob', data: 1 },
      { topic: 'room', from: 'peer-alice', data: 2 },
    ])
    expect(heard).toEqual([1, 2])
  })

  test('what comes before somebody listens is kept for the first', async () => {
    const { alice, bob } = await two()
    const room = alice.subscribe('room')
    await room.ready
    await bob.publish('room', 'early')
    await world.pass()
    expect((await take(room, 1))[0]!.data).toBe('early')
    const heard: unknown[] = []
    room.on('message', ({ data }) => heard.push(data))
    expect(heard).toEqual([])
  })

  test('each loop has its own place', async () => {
    const { alice, bob } = await two()
    const room = alice.subscribe('room')
    const loops = [take(room, 2), take(room, 2)]
    await room.ready
    for (const n of [1, 2]) await bob.publish('room', n)
    for (const loop of loops) expect((await loop).map((p) => p.data)).toEqual([1, 2])
  })

  test('a loop that is too slow loses the oldest, and is told how many', async () => {
    const { alice } = await two()
    const room = alice.subscribe<number>('room')
    const lost: number[] = []
    alice.on('lost', ({ topic, count }) => topic === 'room' && lost.push(count))
    room.on('lost', ({ count }) => lost.push(count))
    const loop = room[Symbol.asyncIterator]()
    await room.ready
    for (let i = 0; i < 1030; i++) world.node.publish('room', 'peer-bob', i)
    await world.pass()
    expect(lost.reduce((a, b) => a + b)).toBe(2 * 6) // one for the room, one for the page
    expect((await loop.next()).value.data).toBe(6)
  })

  test('leaving the last loop early leaves the topic', async () => {
    const node = await world.page('alice')
    const subscribed = () => [...world.node.sessions.values()].some((s) => s.topics.has('room'))
    const leave: ((room: Room) => Promise<unknown>)[] = [
      (room) => take(room, 1),
      async (room) => {
        for await (const _ of room) throw new Error('enough')
      },
    ]
    for (const way of leave) {
      const room = node.subscribe('room')
      const other = room[Symbol.asyncIterator]()
      const left = way(room).catch(() => {})
      await room.ready
      await room.publish(1)
      await left
      await world.pass()
      expect(subscribed()).toBe(true) // the other loop is there
      expect((await other.next()).value.data).toBe(1)
      await other.return!()
      await world.pass()
      expect(subscribed()).toBe(false)
    }
    const kept = node.subscribe('room')
    kept.on('join', () => {})
    const left = take(kept, 1)
    await kept.publish(2)
    await left
    await world.pass()
    expect(subscribed()).toBe(true) // somebody wants to hear who comes
  })

  test('what the node dropped is told', async () => {
    const { alice } = await two()
    const room = alice.subscribe('room')
    await room.ready
    const lost: unknown[] = []
    alice.on('lost', (detail) => lost.push(detail))
    room.on('lost', (detail) => lost.push(detail))
    const [session] = world.node.sessions.values()
    session!.write([f.LOST, 'room', 5])
    await world.pass()
    expect(lost).toEqual([
      { topic: 'room', count: 5 },
      { topic: 'room', count: 5 },
    ])
  })

  test('a callback that throws harms nobody', async () => {
    const { alice } = await two()
    const errors: unknown[] = []
    alice.on('error', (error) => errors.push(error))
    const room = alice.subscribe('room')
    const heard: unknown[] = []
    room.on('message', () => {
      throw new Error('boom')
    })
    room.on('message', ({ data }) => heard.push(data))
    await room.publish(1)
    await world.pass()
    expect(heard).toEqual([1])
    expect(errors).toMatchObject([{ message: 'boom' }])
  })
})

describe('presence', () => {
  test('who is here, without the own peer; who comes, changes and goes', async () => {
    const { alice, bob } = await two()
    const hers = alice.subscribe<unknown, { name: string }>('room', { state: { name: 'Alice' } })
    await hers.ready
    const his = bob.subscribe<unknown, { name: string }>('room')
    await his.ready
    expect([...his.members.values()]).toEqual([{ peer: 'peer-alice', state: { name: 'Alice' } }])
    await world.pass()
    const seen: unknown[] = []
    for (const type of ['join', 'leave', 'change'] as const) hers.on(type, ({ peer, state }) => seen.push([type, peer, state]))
    his.state = { name: 'Bob' }
    await world.pass()
    expect(his.state).toEqual({ name: 'Bob' })
    expect(hers.members.get('peer-bob')).toEqual({ peer: 'peer-bob', state: { name: 'Bob' } })
    await his.close()
    await world.pass()
    expect(seen).toEqual([
      ['change', 'peer-bob', { name: 'Bob' }],
      ['leave', 'peer-bob', { name: 'Bob' }],
    ])
    expect(hers.members.size).toBe(0)
  })

  test('many states at once become few requests, and the last one holds', async () => {
    const { alice } = await two()
    const room = alice.subscribe<unknown, number>('room')
    await room.ready
    const before = world.frames(f.REQUEST).length
    for (let i = 1; i <= 100; i++) room.state = i
    await world.pass()
    expect(world.frames(f.REQUEST).length - before).toBeLessThanOrEqual(2)
    expect(world.node.topics.get('room')!.get('peer-alice')).toBe(100)
  })

  test('a change that comes before the answer to subscribe is not lost', async () => {
    const { alice } = await two()
    const [session] = world.node.sessions.values()
    world.node.paused = true
    const room = alice.subscribe('room')
    await world.pass()
    session!.write([f.PRESENCE, 'room', 'peer-carol', true, null])
    session!.write([f.PRESENCE, 'room', 'peer-dave', true, null])
    session!.write([f.PRESENCE, 'room', 'peer-dave', false, null])
    await world.pass()
    world.node.topics.set('room', new Map([['peer-dave', null]])) // the list as it was before
    world.node.resume()
    await room.ready
    expect([...room.members.keys()]).toEqual(['peer-carol'])
  })
})

describe('rooms of one topic', () => {
  test('share one subscription, which ends with the last', async () => {
    const { alice } = await two()
    const [one, two_] = [alice.subscribe('room', { state: 1 }), alice.subscribe('room')]
    await Promise.all([one.ready, two_.ready])
    expect(two_.state).toBe(1)
    await one.close()
    expect(world.node.topics.get('room')!.has('peer-alice')).toBe(true)
    await two_.close()
    expect(world.node.topics.get('room')!.has('peer-alice')).toBe(false)
    expect(world.frames(f.REQUEST).map(([, method]) => method)).toEqual(['subscribe', 'unsubscribe'])
  })

  test('leaving and coming back at once ends inside', async () => {
    const { alice } = await two()
    const one = alice.subscribe('room')
    const closed = one.close()
    const again = alice.subscribe('room')
    await closed
    await again.ready
    await world.pass()
    expect(world.node.topics.get('room')!.has('peer-alice')).toBe(true)
    await again.publish('x')
    expect((await take(again, 1))[0]!.data).toBe('x')
  })

  test('a topic that cannot be joined rejects, in the loop too, and can be tried again', async () => {
    const { alice } = await two()
    world.node.fail.set('subscribe', 'reserved')
    const room = alice.subscribe('/parley/x')
    const loop = watch(take(room, 1))
    await expect(room.ready).rejects.toMatchObject({ code: 'reserved' })
    await world.pass()
    expect(loop.now).toBe('reserved')
    await expect(take(room, 1)).rejects.toMatchObject({ code: 'reserved' })
    world.node.fail.clear()
    await alice.subscribe('/parley/x').ready
  })

  test('closing ends the loops; a signal does too', async () => {
    const { alice } = await two()
    const controller = new AbortController()
    const room = alice.subscribe('room')
    const other = alice.subscribe('other', { signal: controller.signal })
    const loops = [take(room, 1), take(other, 1)]
    await Promise.all([room.ready, other.ready])
    await room.close()
    controller.abort()
    expect(await Promise.all(loops)).toEqual([[], []])
    await world.pass()
    expect([...world.node.sessions.values()][0]!.topics.size).toBe(0)
  })
})
