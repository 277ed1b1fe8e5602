// A page is a libp2p peer like any other: js-libp2p opens a stream to it and is
// messaged by it.
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { connect, type Message, type ParleyNode } from '../../client/src/index.js'
import { Parley } from '../e2e/parley.js'
import { ReferencePeer } from './reference.js'

const protocol = '/probe/1.0.0'

let parley: Parley
let page: ParleyNode
let peer: ReferencePeer
const got: Message[] = []

beforeAll(async () => {
  parley = await Parley.start()
  page = await connect({ url: parley.url, token: parley.token })
  peer = await ReferencePeer.start()
  await peer.listen(protocol)
  await page.start(protocol, (message) => void got.push(message))
  await page.addPeers([peer.id], { addresses: peer.addresses })
  await until(() => peer.host.getConnections().some((c) => c.remotePeer.toString() === page.peer))
})
afterAll(async () => {
  await page?.close()
  await peer?.stop()
  await parley?.stop()
})

async function until(condition: () => unknown): Promise<void> {
  await vi.waitUntil(condition, { timeout: 60_000, interval: 10 })
}

describe('a js-libp2p peer', () => {
  test('opens a stream to a page: the page gets the message, the peer its acknowledgement', async () => {
    const stream = await peer.open(page.peer, protocol)
    const id = peer.send(stream, { hello: ['from', 'js-libp2p'] })
    await until(() => peer.acked.includes(id) && got.length > 0) // the page has it, and its handler soon
    expect(got.at(-1)).toMatchObject({ from: peer.id, protocol, data: { hello: ['from', 'js-libp2p'] } })
  })

  test('is messaged by the page, and the page is told that it was delivered', async () => {
    expect(await page.send(peer.id, protocol, { reply: 1 })).toBe('delivered')
    expect(peer.got.at(-1)).toEqual({ from: page.peer, data: { reply: 1 } })
  })

  test('100 messages each way arrive once and in order', async () => {
    const before = { page: got.length, peer: peer.got.length }
    const stream = await peer.open(page.peer, protocol)
    const ids = Array.from({ length: 100 }, (_, i) => peer.send(stream, i))
    const levels = await Promise.all(ids.map((_, i) => page.send(peer.id, protocol, i)))
    await until(() => ids.every((id) => peer.acked.includes(id)) && got.length >= before.page + 100)
    const numbers = ids.map((_, i) => i)
    expect(got.slice(before.page).map((m) => m.data)).toEqual(numbers)
    expect(peer.got.slice(before.peer).map((m) => m.data)).toEqual(numbers)
    expect(new Set(levels)).toEqual(new Set(['delivered']))
  })

  test('G_D6: both send first at the same moment, and nothing is lost or doubled', async () => {
    for (let round = 0; round < 20; round++) {
      const fresh = `/probe/round/${round}`
      const heard: unknown[] = []
      await peer.listen(fresh)
      await page.start(fresh, ({ data }) => void heard.push(data))
      const before = peer.got.length
      const opening = peer.open(page.peer, fresh).then((stream) => peer.send(stream, 'from the peer'))
      const [level, id] = await Promise.all([page.send(peer.id, fresh, 'from the page'), opening])
      await until(() => peer.acked.includes(id) && heard.length > 0)
      expect([level, heard, peer.got.slice(before).map((m) => m.data)]).toEqual(['delivered', ['from the peer'], ['from the page']])
    }
  })

  test('the page knows that the path is direct', async () => {
    expect(await page.path(peer.id)).toMatchObject({ peer: peer.id, path: 'direct' })
  })
})
