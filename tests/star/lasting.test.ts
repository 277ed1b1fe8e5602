// Acceptance: announcements over time, restarts, and readers
// that are slow.
import { createHash, randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { called, exchange, NpmPeer, originals, pause, pushable, readAll, recordedId, stacks, until, type Any } from './npm.js'
import { onThatPort } from '../e2e/parley.js'
import { Raw } from './raw.js'
import { open, seconds, Star } from './server.js'

const long = !!process.env.PARLEY_LONG
const [a, b, c] = ['/ip4/1.1.1.1', '/ip4/2.2.2.2', '/ip4/3.3.3.3'] as const

describe('A-9 announcements', () => {
  const interval = long ? 10 : 2
  let star: Star
  beforeAll(async () => void (star = await Star.start({ ...open, Refresh: seconds(interval) })))
  afterAll(() => star.stop())

  // The client measures, in a busy process on a busy machine: it may try again, and measures long intervals alone.
  it('come at the interval, ± 15 %', { retry: 2, timeout: interval * 30_000 }, async () => {
    const hearing = await Raw.at(star, 'recent', a)
    const members = await Promise.all([b, c].map((address) => Raw.at(star, '2019', address)))
    for (const address of [b, c]) await until('four of them', () => hearing.heard(address) >= 4, interval * 10_000)
    for (const address of [b, c]) {
      const at = hearing.events.filter((e) => e.name === 'ws-peer' && e.args[0] === address).map((e) => e.at)
      for (const [i, t] of long ? at.slice(1).entries() : []) {
        expect(t - at[i]!).toBeGreaterThan(interval * 850)
        expect(t - at[i]!).toBeLessThan(interval * 1150)
      }
    }
    for (const s of [hearing, ...members]) s.close()
  })

  it.each([['leave', 1], ['join, join, leave', 2]])('end after %s', { timeout: interval * 30_000 }, async (_, joins) => {
    const hearing = await Raw.at(star, 'recent', a)
    const member = await Raw.connect(star, 'recent')
    for (let i = 0; i < joins; i++) await member.call('ss-join', b, '')
    await until('it is heard', () => hearing.heard(b) > 0)
    member.socket.emit('ss-leave', b)
    await until('it has left', async () => (await star.metric('rendezvous_peers')) === 1)
    const before = hearing.heard(b)
    await pause(interval * 1500)
    const after = hearing.heard(b)
    expect(after - before).toBeLessThanOrEqual(1) // that was under way
    await pause(interval * 1500)
    expect(hearing.heard(b)).toBe(after)
    for (const s of [hearing, member]) s.close()
  })
})

describe.each(stacks)('A-9 a peer that vanishes, %s stack', (stack) => {
  let star: Star
  beforeAll(async () => void (star = await Star.start(open)))
  afterAll(() => star.stop())

  it('ends the streams of the other with true', async () => {
    const [alice, bob] = [await Raw.at(star, stack, a), await Raw.at(star, stack, b)]
    const ends: Any[] = []
    alice.socket.on('socket.io-pull-stream.error.d.listener', (end: Any) => ends.push(end))
    await alice.dial(a, b, 'd')
    bob.vanish()
    await until('the end', () => ends.length > 0)
    expect(ends).toEqual([true])
    alice.close()
  })

  it('ends a dial in progress with a string', async () => {
    const [alice, bob] = [await Raw.at(star, stack, a), await Raw.at(star, stack, b)]
    bob.incoming = () => bob.vanish()
    expect(await alice.call('ss-dial', a, b, 'd')).toEqual(['Peer disconnected'])
    alice.close()
  })
})

describe.each(stacks)('A-11 clients of the %s stack', { timeout: 240_000 }, (stack) => {
  let star: Star
  let peers: NpmPeer[]
  afterAll(() => star.stop())
  const identities = async () => [await recordedId(stack, 'A'), await recordedId(stack, 'B')]

  /** All are joined and reach each other. */
  async function whole(): Promise<void> {
    await until('both are back', async () => (await star.metric('rendezvous_peers')) === peers.length, 60_000)
    const text = Buffer.from('still there')
    expect(await exchange(stack, await peers[0]!.dial(peers[1]!.address), [text])).toEqual(text)
    expect(await exchange(stack, await peers[1]!.dial(peers[0]!.address), [text])).toEqual(text)
  }

  it('come back after a crash of the server, by proof', async () => {
    star = await Star.start()
    peers = await Promise.all((await identities()).map((id) => NpmPeer.at(star, stack, id)))
    await whole()
    await star.stop('SIGKILL')
    await until('they see it', () => peers.every((p) => !p.socket.connected))
    star = await star.again()
    await whole()
  })

  it('come back after its drain, and finish their streams meanwhile', async () => {
    await star.stop('SIGKILL')
    const { port } = star
    star = await onThatPort(() => Star.start({ Drain: seconds(20), Port: port }))
    await whole()
    const writing = pushable()
    const stream = await peers[0]!.dial(peers[1]!.address)
    originals(stack).pull(writing.source, stream)
    const back = readAll(stack, stream)
    star.signal('SIGTERM')
    await until('the drain', async () => (await fetch(`${star.url}/socket.io/?EIO=3&transport=polling`)).status === 503)
    await expect(peers[0]!.dial(peers[1]!.address)).rejects.toThrow('Server is shutting down')
    writing.push(Buffer.from('the last words'))
    writing.end()
    expect(String(await back)).toBe('the last words')
    await star.ended
    expect(star.output).toContain('Rendezvous server stopped')
    star = await star.again()
    await whole()
  })

  it('come back when their own connection breaks', async () => {
    for (const p of peers) p.drop()
    await until('they see it', () => peers.every((p) => !p.socket.connected))
    await whole()
    for (const p of peers) p.close()
  })
})

// A sender that is held back: 60 s with the times of the defaults, or 8 s with a
// tenth of them.
describe.each(stacks)('A-12 a sender of the %s stack', { timeout: 240_000 }, (stack) => {
  const unit = long ? 10 : 2 // seconds from one chunk to the next; six are more than a silent client may take
  const size = 32 << 20
  const chunk = 512 << 10 // smaller ones the system takes several of before it lets the server know
  let star: Star, sender: Raw
  let readers: Raw[] = []

  beforeAll(async () => {
    const times = long ? {} : { Times: { PingInterval: seconds(2.5), PingTimeout: seconds(6), Stuck: seconds(30) }, Streams: { Stall: seconds(10) } }
    star = await Star.start({ ...open, ...times })
    sender = await Raw.at(star, stack, a)
    readers = [await Raw.at(star, stack, b), await Raw.at(star, stack, c)]
  })
  afterAll(async () => {
    for (const s of [sender, ...readers]) s.close()
    await star.stop()
  })

  /** The TCP connection below a client. */
  const tcp = (client: Raw): Any => client.socket.io.engine.transport.ws._socket

  /** Starts to send `size` bytes on a stream; gives their hash. */
  function send(sink: Any): string {
    const data = randomBytes(chunk)
    const hash = createHash('sha256')
    let left = size / chunk
    originals(stack).pull((end: unknown, answer: Any) => {
      if (end || left-- === 0) return answer(end || true)
      data.writeUInt32BE(left)
      hash.update(data)
      answer(null, Buffer.from(data))
    }, sink)
    return hash.digest('hex')
  }

  it('waits for a reader that takes a chunk now and then, and loses nothing', async () => {
    const slow = readers[0]!
    let got = 0
    const hash = createHash('sha256')
    let over: (end: unknown) => void
    const ended = new Promise((resolve) => (over = resolve))
    let hurry = false
    slow.incoming = (id, answer) => {
      originals(stack).pull(
        slow.socket.createSource(`${id}.dialer`),
        originals(stack).pull.drain((data: Buffer) => {
          hash.update(data)
          got++
          if (!hurry) tcp(slow).pause()
        }, (end: unknown) => over(end ?? true)),
      )
      answer()
    }
    const { sink } = await sender.dial(a, b, 'slow')
    const wanted = send(sink)
    await until('the sender is held', async () => (await star.metric('parley_star_paused_senders')) === 1)
    for (let i = 0; i < 6; i++) {
      await pause(unit * 1000)
      tcp(slow).resume()
    }
    expect(got).toBeLessThan(size / chunk / 2)
    expect([sender.ended, slow.ended]).toEqual(['', ''])
    hurry = true
    tcp(slow).resume()
    expect(await ended).toBe(true)
    expect(got).toBe(size / chunk)
    expect(hash.digest('hex')).toBe(wanted)
  })

  it('is told of a reader that takes nothing, and its other streams go on', async () => {
    const [dead, fine] = readers as [Raw, Raw]
    dead.incoming = (id, answer) => {
      dead.socket.createSource(`${id}.dialer`)
      answer()
      setTimeout(() => tcp(dead).pause(), 20)
    }
    // It says that it lives, and doesn't mind that it hears nothing.
    const { engine } = dead.socket.io
    engine.onHeartbeat = () => {}
    engine.off('heartbeat') // each packet would set the timer anew
    clearTimeout(engine.pingTimeoutTimer)
    const pings = setInterval(() => engine.sendPacket('ping'), unit * 1000)
    const { sink, source } = await sender.dial(a, b, 'dead')
    const other = await sender.dial(a, c, 'fine')
    send(sink)
    const end = await called((done) => originals(stack).pull(source, originals(stack).pull.collect(done))).catch((error: Error) => error.message)
    expect(end).toBe('Stream stalled')
    const text = Buffer.from('the others go on')
    expect(await exchange(stack, other, [text])).toEqual(text)
    expect([sender.ended, fine.ended]).toEqual(['', ''])
    clearInterval(pings)
  })
})
