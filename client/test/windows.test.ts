import { describe, expect, test } from 'vitest'
import { encode } from '../src/cbor.js'
import * as f from '../src/frames.js'
import { setup, watch } from './pages.js'

const world = setup()

/** A page whose calls nobody answers, with these limits. */
async function sender(limits: Partial<typeof world.node.limits>) {
  Object.assign(world.node.limits, limits)
  return world.page('alice')
}

describe('windows', () => {
  test('calls under way are limited; the rest waits by itself and loses nothing', async () => {
    const alice = await sender({ requests: 16 })
    const sent = Array.from({ length: 100 }, (_, i) => watch(alice.send('peer-bob', 'chat', i)))
    await world.pass()
    expect(world.frames(f.SEND).length).toBeLessThanOrEqual(16)
    const got: unknown[] = []
    const bob = await world.page('bob')
    await bob.start('chat', ({ data }) => void got.push(data))
    await world.pass(500)
    expect(got).toEqual(Array.from({ length: 100 }, (_, i) => i))
    expect(new Set(sent.map((s) => s.now))).toEqual(new Set(['handled']))
  })

  test('G_D4: a peer that does not answer holds up nobody else', async () => {
    const alice = await sender({ requests: 16 })
    for (let i = 0; i < 100; i++) watch(alice.send('peer-gone', 'chat', i))
    for (let i = 0; i < 100; i++) watch(alice.send('peer-gone-too', 'chat', i))
    const bob = await world.page('bob')
    await bob.start('chat', () => 'here')
    expect(await alice.request('peer-bob', 'chat')).toBe('here')
    expect((await alice.path('peer-bob')).path).toBe('local')
  })

  test('bytes to one peer and protocol are limited, one message always may', async () => {
    const alice = await sender({ outbox: 1500 })
    for (let i = 0; i < 5; i++) watch(alice.send('peer-bob', 'chat', 'x'.repeat(400)))
    watch(alice.send('peer-carol', 'chat', 'x'.repeat(5000)))
    await world.pass()
    expect(world.frames(f.SEND).map(([, peer]) => peer)).toEqual(['peer-bob', 'peer-bob', 'peer-carol'])
  })

  test('bytes altogether are limited', async () => {
    const alice = await sender({ outboxTotal: 1500 })
    for (let i = 0; i < 5; i++) watch(alice.send(`peer-${i}`, 'chat', 'x'.repeat(400)))
    await world.pass()
    expect(world.frames(f.SEND).length).toBe(2)
  })

  test('a message over the limit rejects, and those behind it go on', async () => {
    const alice = await sender({ message: 1000 })
    const large = watch(alice.send('peer-bob', 'chat', 'x'.repeat(2000)))
    const small = watch(alice.send('peer-bob', 'chat', 'x', { level: 'queued' }))
    await world.pass()
    expect(large.error).toMatchObject({ code: 'too-large', message: expect.stringContaining('limit 1000') })
    expect(small.now).toBe('queued')
  })

  test('many small frames are few messages', async () => {
    const alice = await sender({})
    let messages = 0
    const accept = world.node.accept.bind(world.node)
    world.node.accept = (wire) => {
      accept(wire)
      const read = wire.onmessage
      wire.onmessage = (bytes) => {
        messages++
        read(bytes)
      }
    }
    world.node.cut()
    await world.pass(1000)
    messages = 0
    for (let i = 0; i < 300; i++) watch(alice.send('peer-bob', 'chat', i, { level: 'queued' }))
    await world.pass()
    expect(world.frames(f.SEND).length).toBe(300)
    expect(messages).toBeLessThan(20)
  })

  test('replies that the node does not take hold up the handler, not the page', async () => {
    const alice = await sender({})
    let asked = 0
    await alice.start('large', () => {
      asked++
      return new Uint8Array(6 << 20)
    })
    await alice.start('other', () => 1)
    const [session] = world.node.sessions.values()
    world.node.paused = true // so nothing is acknowledged
    for (let i = 1; i <= 10; i++) session!.write([f.MESSAGE, i, 'peer-bob', 'large', null, f.wantsReply])
    await world.pass()
    expect(asked).toBe(3)
    expect(alice.state).toBe('online')
    world.node.resume()
    session!.wire!.send(encode([f.RECEIVED, session!.received]))
    await world.pass(100)
    expect(asked).toBeGreaterThan(3)
  })
})
