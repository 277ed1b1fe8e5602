// Acceptance A-1: two original clients meet on parley's server.
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exchange, NpmPeer, originals, pushable, readAll, recordedId, stacks, until } from './npm.js'
import { Star } from './server.js'

describe.each(stacks)('two clients of the %s stack', (stack) => {
  const { pull } = originals(stack)
  let star: Star, a: NpmPeer, b: NpmPeer
  let connected: (connection: unknown) => void = () => {}

  beforeAll(async () => {
    star = await Star.start()
    a = await NpmPeer.at(star, stack, await recordedId(stack, 'A'))
    b = await NpmPeer.at(star, stack, await recordedId(stack, 'B'), (c) => connected(c))
  })

  afterAll(async () => {
    a?.close()
    b?.close()
    await star.stop()
  })

  /** The other side of the next dial. */
  const next = () => new Promise<any>((resolve) => (connected = resolve))

  it('A-1 see each other by list and by ws-peer', async () => {
    await until('A hears of B', () => a.heard(b.address) > 0)
    expect(b.heard(a.address)).toBeGreaterThan(0)
    expect(a.heard(a.address)).toBe(0)
  })

  it('A-1 echo both ways', async () => {
    const there = next()
    const dialed = await a.dial(b.address)
    const listened = await there
    pull(listened, listened)
    expect((await exchange(stack, dialed, [Buffer.from('hello'), Buffer.from([0, 255, 254])])).toString('hex')).toBe(
      Buffer.from('hello').toString('hex') + '00fffe',
    )
    expect((await exchange(stack, await b.dial(a.address), [Buffer.from('and back')])).toString()).toBe('and back')
  })

  it('A-1 know whom they talk to', async () => {
    const there = next()
    const dialed = await a.dial(b.address)
    const listened = await there
    const observed = (c: any) => new Promise((resolve) => c.getObservedAddrs((_: unknown, all: any[]) => resolve(all.map(String))))
    expect(await observed(dialed)).toEqual([b.address])
    expect(await observed(listened)).toEqual([a.address])
    pull(pull.empty(), dialed, pull.drain())
    pull(pull.empty(), listened, pull.drain())
  })

  it('A-1 1 MiB both ways, unharmed', async () => {
    const data = randomBytes(1 << 20)
    const pieces = Array.from({ length: 16 }, (_, i) => data.subarray(i << 16, (i + 1) << 16))
    const got = await exchange(stack, await b.dial(a.address), pieces)
    expect(got.equals(data)).toBe(true)
  })

  it('A-1 half-close each way', async () => {
    for (const dialerFirst of [true, false]) {
      const there = next()
      const dialed = await a.dial(b.address)
      const listened = await there
      const [first, second] = dialerFirst ? [dialed, listened] : [listened, dialed]
      const late = pushable()
      const seen = readAll(stack, second)
      const answer = readAll(stack, first)
      pull(late.source, second)
      pull(pull.values([Buffer.from('over')]), first)
      expect((await seen).toString()).toBe('over') // its end has come
      late.push(Buffer.from('not yet '))
      late.push(Buffer.from('over'))
      late.end()
      expect((await answer).toString()).toBe('not yet over')
    }
  })

  it('A-1 100 dials at once', async () => {
    const all = await Promise.all(
      Array.from({ length: 100 }, async (_, i) => exchange(stack, await b.dial(a.address), [Buffer.from(`number ${i}`)])),
    )
    expect(all.map(String)).toEqual(Array.from({ length: 100 }, (_, i) => `number ${i}`))
    await until('the server forgets them', async () => (await star.metric('parley_star_streams')) === 0)
  })
})
