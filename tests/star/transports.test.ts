// Acceptance: socket.io-client on every transport, and its heartbeat.
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { called, originals, exchange, stacks, until } from './npm.js'
import { Raw, ways } from './raw.js'
import { open, seconds, Star } from './server.js'

let star: Star
beforeAll(async () => void (star = await Star.start(open)))
afterAll(() => star.stop())

describe.each(stacks)('socket.io-client of the %s stack', (stack) => {
  it.each(Object.keys(ways))('A-4 on %s: join, dial, three buffers echoed, leave', async (way) => {
    const [a, b] = ['/ip4/1.2.3.4', '/ip4/1.2.3.5']
    const alice = await Raw.at(star, stack, a, ways[way])
    const bob = await Raw.at(star, stack, b, ways[way])
    await until('Alice hears of Bob', () => alice.heard(b) > 0)

    const streams = await alice.dial(a, b, 'dial one')
    const buffers = [Buffer.from('grüße, 你好 🎈'), Buffer.from([0, 4, 255, 128]), Buffer.alloc(0), randomBytes(100_000)]
    const { pull } = originals(stack)
    pull(pull.values(buffers), streams.sink)
    const back = await called<Buffer[]>((done) => pull(streams.source, pull.collect(done)))
    expect(back.map((buffer) => buffer.toString('hex'))).toEqual(buffers.map((buffer) => buffer.toString('hex')))

    alice.socket.emit('ss-leave', a)
    await until('she has left', async () => (await bob.call('ss-dial', b, a, 'late'))[0] === 'Peer not found')
    expect(alice.transport).toBe(ways[way]!.transports!.at(-1))
    alice.close()
    bob.close()
    await until('their sessions end', async () => (await star.metric('rendezvous_peers')) === 0)
  })

  it('A-4 polling and WebSocket clients meet', async () => {
    const all = Object.entries(ways)
    const clients = await Promise.all(all.map(([, way], i) => Raw.at(star, stack, `/ip4/9.9.9.${i}`, way)))
    for (const [i, from] of clients.entries()) {
      const to = (i + 1) % all.length
      const data = randomBytes(70_000)
      const streams = await from.dial(`/ip4/9.9.9.${i}`, `/ip4/9.9.9.${to}`, `from ${i}`)
      expect((await exchange(stack, streams, [data])).equals(data)).toBe(true)
    }
    for (const client of clients) client.close()
  })
})

/** What a silent client is given here: 1.5 s, or as the defaults are. */
const long = process.env.PARLEY_LONG
const times = long ? { PingInterval: seconds(25), PingTimeout: seconds(20) } : { PingInterval: seconds(1), PingTimeout: seconds(0.5) }
const life = (times.PingInterval + times.PingTimeout) / 1e6

describe('heartbeat', { timeout: 3 * life + 60_000 }, () => {
  let beating: Star, patient: Star // the second waits for a machine that is busy
  beforeAll(async () => {
    beating = await Star.start({ ...open, Times: times })
    patient = long ? beating : await Star.start({ ...open, Times: { ...times, PingTimeout: seconds(20) } })
  })
  afterAll(async () => {
    await beating.stop()
    if (!long) await patient.stop()
  })

  it.concurrent.each(stacks.flatMap((stack) => Object.keys(ways).map((way) => [way, stack] as const)))(
    'A-6 keeps an idle client on %s of the %s stack',
    async (way, stack) => {
      const client = await Raw.connect(patient, stack, ways[way])
      let pongs = 0
      client.socket.io.engine.on('pong', () => pongs++)
      await until('pings are answered', () => pongs === 3 || client.ended !== '', 3 * life + 50_000)
      expect(client.ended).toBe('')
      client.close()
    },
  )

  it.concurrent.each(stacks)('A-6 ends a silent WebSocket client of the %s stack', async (stack) => {
    const start = performance.now() // before the server's
    const client = await Raw.connect(beating, stack)
    const engine = client.socket.io.engine
    engine.ping = () => {} // as one whose page is frozen
    engine.onHeartbeat = () => {}
    clearTimeout(engine.pingIntervalTimer)
    clearTimeout(engine.pingTimeoutTimer)
    await until('the server closes it', () => client.ended !== '', 2 * life + 50_000)
    expect(performance.now() - start).toBeGreaterThan(life - 1100) // the server looks once a second
    if (long) expect(performance.now() - start).toBeLessThan(life + 3000)
  })

  it.concurrent('A-6 ends a polling client that is silent', async () => {
    const base = `${beating.url}/socket.io/?EIO=3&transport=polling&b64=1`
    let start = 0
    let answer: Response
    let sid = ''
    do {
      start = performance.now() // before the server's
      const opened = await (await fetch(base)).text()
      sid = (JSON.parse(opened.slice(opened.indexOf('{'), opened.indexOf('}') + 1)) as { sid: string }).sid
      answer = await fetch(`${base}&sid=${sid}`) // waits until something comes
    } while (answer.status !== 200 && performance.now() - start > life - 1100) // a machine that came too late with it
    expect(await answer.text()).toBe('1:1')
    expect(performance.now() - start).toBeGreaterThan(life - 1100)
    if (long) expect(performance.now() - start).toBeLessThan(life + 3000)
    expect((await fetch(`${base}&sid=${sid}`)).status).toBe(400)
  })
})
