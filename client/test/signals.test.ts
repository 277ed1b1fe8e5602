// Every call of the public API takes an AbortSignal and heeds it: the calls are
// read out of the types that are shipped, so that one without a row fails.
import { readFileSync } from 'node:fs'
import { describe, expect, test, vi } from 'vitest'
import type { Channel, ParleyNode, Room, SpaceRoom } from '../src/api.js'
import { connect } from '../src/index.js'
import * as f from '../src/frames.js'
import { setup, take, watch } from './pages.js'

const world = setup()
const types = readFileSync(new URL('../dist/parley.d.ts', import.meta.url), 'utf8')

interface Member {
  name: string
  params: string
  result: string
}

/** The methods of an exported interface, and the functions. */
function callsIn(text: string): Member[] {
  const found: Member[] = []
  for (const [, name, body] of text.matchAll(/^export interface (\w+)[^\n]*\{\n(.*?)^\}/gms)) {
    const flat = body!.replace(/ *\/\*\*.*?\*\/\n/gs, '').replace(/\n {5,}/g, ' ').replace(/\n {4}\}/g, ' }')
    for (const [, method, params, result] of flat.matchAll(/^ {4}([\w[\].]+)(?:<.*?>)?\((.*)\): (.*);$/gm)) {
      found.push({ name: `${name}.${method}`, params: params!, result: result! })
    }
  }
  for (const [, name, params, result] of text.matchAll(/^export declare function (\w+)\((.*)\): (.*);$/gm)) {
    found.push({ name: name!, params: params!, result: result! })
  }
  return found
}

/** Those that something has to be waited for. */
const waits = ({ name, result }: Member) => /Promise<|^Room<|^Accepting$|AsyncIterable/.test(result) && !name.endsWith('[Symbol.asyncDispose]')
const takesSignal = ({ params }: Member) => /options\??: [^,]*\b(CallOptions|SendOptions|SubscribeOptions|OpenOptions|ConnectOptions)\b/.test(params)

/** What there is before a call is made. */
interface Things {
  node: ParleyNode
  room: Room
  space: SpaceRoom
  channel: Channel
}

type Make = (things: Things, signal: AbortSignal) => Promise<unknown>

/** How each call is made so that it has to wait: here the node does not answer. */
const calls: Record<string, Make> = {
  connect: (_, signal) => connect({ url: 'ws://node/ws', WebSocket: world.node.WebSocket, wait: true, signal }),
  'ParleyNode.start': ({ node }, signal) => node.start('new', () => {}, { signal }),
  'ParleyNode.stop': ({ node }, signal) => node.stop('old', { signal }),
  'ParleyNode.send': ({ node }, signal) => node.send('peer-bob', 'x', 1, { signal }),
  'ParleyNode.request': ({ node }, signal) => node.request('peer-bob', 'x', 1, { signal }),
  'ParleyNode.publish': ({ node }, signal) => node.publish('t', 1, { signal }),
  'ParleyNode.members': ({ node }, signal) => node.members('t', { signal }),
  'ParleyNode.path': ({ node }, signal) => node.path('peer-bob', { signal }),
  'ParleyNode.addPeers': ({ node }, signal) => node.addPeers(['peer-bob'], { signal }),
  'ParleyNode.removePeers': ({ node }, signal) => node.removePeers(['peer-bob'], { signal }),
  'ParleyNode.exportKey': ({ node }, signal) => node.exportKey({ signal }),
  'ParleyNode.status': ({ node }, signal) => node.status({ signal }),
  'ParleyNode.subscribe': ({ node }, signal) => node.subscribe('new', { signal }).ready,
  'Room.publish': ({ room }, signal) => room.publish(1, { signal }),
  'Room.close': ({ room }, signal) => room.close({ signal }),
  'Space.join': ({ node }, signal) => node.space('new').join({ signal }),
  'SpaceRoom.open': ({ space }, signal) => space.open('peer-bob', 'files/1', { signal }),
  'SpaceRoom.leave': ({ space }, signal) => space.leave({ signal }),
  'Channel.send': ({ channel }, signal) => channel.send(new Uint8Array(64 << 10), { signal }),
  'Channel.refresh': ({ channel }, signal) => channel.refresh({ signal }),
  'Channel.close': ({ channel }, signal) => channel.close(undefined, { signal }),
}
/** Loops: the signal ends them quietly. */
const loops: Record<string, Make> = {
  'ParleyNode.listen': ({ node }, signal) => take(node.listen('new', { signal }), 1),
  'SpaceRoom.accept': ({ space }, signal) => take(space.accept('new', { signal }), 1),
}
/** What needs no signal: it settles at once, whatever the node does. */
const atOnce: Record<string, (things: Things) => Promise<unknown>> = {
  'ParleyNode.close': ({ node }) => node.close(),
}
/** The signal ends the waiting only: what they began goes on. */
const endings = ['ParleyNode.stop', 'Room.close', 'SpaceRoom.leave', 'Channel.close']

async function things(): Promise<Things> {
  const [node, bob] = [await world.page('alice'), await world.page('bob')]
  await node.start('old', () => {})
  await bob.start('x', () => {})
  const room = node.subscribe('t')
  await room.ready
  const [space, his] = [await node.space('s').join(), await bob.space('s').join()]
  await his.accept('files/1').ready // and never reads
  const channel = await space.open('peer-bob', 'files/1')
  for (let sent; sent?.now !== 'pending'; await world.pass()) sent = watch(channel.send(new Uint8Array(64 << 10))) // all the credit that there is
  return { node, room, space, channel }
}

describe('the types', () => {
  test('have a signal in every call that waits', () => {
    const all = callsIn(types).filter(waits)
    expect(all.map(({ name }) => name).sort()).toEqual([...Object.keys(calls), ...Object.keys(loops), ...Object.keys(atOnce)].sort())
    expect(all.filter((m) => !takesSignal(m)).map(({ name }) => name)).toEqual(Object.keys(atOnce))
  })
})

describe.each(Object.entries(calls))('%s', (name, make) => {
  test('rejects at once when its signal aborts while there is no node', async () => {
    const all = await things()
    world.node.down = true
    world.node.cut()
    await world.pass()
    const controller = new AbortController()
    const call = watch(make(all, controller.signal))
    await world.pass()
    expect(call.now).toBe('pending')
    controller.abort('enough')
    await world.pass()
    expect(call.now).toBe('cancelled')
    if (name !== 'connect') expect(call.error.cause).toBe('enough')
  })

  test('rejects with timeout when the time is over', async () => {
    const all = await things()
    world.node.down = true
    world.node.cut()
    await world.pass()
    const controller = new AbortController()
    const call = watch(make(all, controller.signal))
    controller.abort(new DOMException('too long', 'TimeoutError'))
    await world.pass()
    expect(call.now).toBe('timeout')
  })

  test('does nothing with a signal that has aborted', async () => {
    const all = await things()
    const before = world.node.seen.length
    await expect(make(all, AbortSignal.abort())).rejects.toMatchObject({ code: 'cancelled' })
    await world.pass(1000)
    const kinds = [f.REQUEST, f.SEND, f.CONTENT]
    const said = world.node.seen.slice(before).filter(([kind, , method]) => kinds.includes(kind as number) && method !== 'unsubscribe')
    if (!endings.includes(name)) expect(said.map(([kind, , method]) => (kind === f.REQUEST ? method : kind))).toEqual([])
  })

  test('leaves nothing at its signal when it has settled', async () => {
    const all = await things()
    const controller = new AbortController()
    const added = vi.spyOn(controller.signal, 'addEventListener')
    const removed = vi.spyOn(controller.signal, 'removeEventListener')
    const call = watch(make(all, controller.signal))
    await world.pass(1000)
    if (name !== 'connect') await all.node.close() // what it began lasts until now
    await world.pass()
    expect(call.now).not.toBe('pending')
    expect(removed.mock.calls.length).toBe(added.mock.calls.length)
    controller.abort()
    await world.pass()
  })
})

describe.each(Object.entries(loops))('%s', (_, make) => {
  test('ends with its signal, also while there is no node, and leaves nothing there', async () => {
    const all = await things()
    world.node.down = true
    world.node.cut()
    await world.pass()
    const controller = new AbortController()
    const added = vi.spyOn(controller.signal, 'addEventListener')
    const removed = vi.spyOn(controller.signal, 'removeEventListener')
    const loop = watch(make(all, controller.signal))
    await world.pass()
    expect(loop.now).toBe('pending')
    controller.abort()
    await world.pass()
    expect(loop.now).toEqual([])
    expect(removed.mock.calls.length).toBe(added.mock.calls.length)
  })
})

test.each(Object.entries(atOnce))('%s settles at once without a node', async (_, make) => {
  const all = await things()
  world.node.down = true
  world.node.cut()
  await world.pass()
  const call = watch(make(all))
  await world.pass()
  expect(call.now).toBe(undefined)
})

describe('what a signal must not do', () => {
  test('that of a protocol that was stopped does not stop the next one', async () => {
    const { node } = await things()
    const first = new AbortController()
    await node.start('chat', () => 'first', { signal: first.signal })
    await node.stop('chat')
    await node.start('chat', () => 'second')
    first.abort()
    await world.pass()
    expect(await node.request('peer-alice', 'chat')).toBe('second')
  })

  test('that of a start that failed does not stop the next one', async () => {
    const { node } = await things()
    const first = new AbortController()
    world.node.fail.set('start', 'reserved')
    await expect(node.start('chat', () => 'first', { signal: first.signal })).rejects.toMatchObject({ code: 'reserved' })
    world.node.fail.clear()
    await node.start('chat', () => 'second')
    first.abort()
    await world.pass()
    expect(await node.request('peer-alice', 'chat')).toBe('second')
  })

  test('a loop over a protocol of another handler takes nothing from it', async () => {
    const { node } = await things()
    await node.start('chat', () => 'mine')
    const loop = node.listen('chat')
    await expect(loop.next()).rejects.toMatchObject({ code: 'already-started' })
    await loop.return!()
    expect(await node.request('peer-alice', 'chat')).toBe('mine')
  })

  test('a space whose join was given up can be joined again', async () => {
    const { node } = await things()
    world.node.down = true
    world.node.cut()
    await world.pass()
    const controller = new AbortController()
    const given = watch(node.space('new').join({ signal: controller.signal }))
    await world.pass()
    controller.abort()
    await world.pass()
    expect(given.now).toBe('cancelled')
    const again = node.space('new').join()
    world.node.down = false
    await world.pass(1000)
    expect((await again).space).toBe('new')
  })
})

test('a loop ends when the page stops its protocol', async () => {
  const { node } = await things()
  const loop = watch(take(node.listen('chat'), 1))
  await world.pass()
  await node.stop('chat')
  await world.pass()
  expect(loop.now).toEqual([])
})
