import { describe, expect, test } from 'vitest'
import { Log } from '../src/log.js'
import { random } from './random.js'

const frame = (n: number) => new Uint8Array(n)
const taken = (log: Log, limit = 1e9) => {
  const batch: Uint8Array[] = []
  log.take(batch, limit)
  return batch.map((b) => b.length)
}

describe('Log', () => {
  test('numbers from 1 and gives out in order, once a socket', () => {
    const log = new Log()
    expect([log.push(frame(1)), log.push(frame(2))]).toEqual([1, 2])
    expect(taken(log)).toEqual([1, 2])
    expect(taken(log)).toEqual([])
    expect(log.sent).toBe(2)
  })

  test('a batch ends before its limit, but holds at least one frame', () => {
    const log = new Log()
    for (const n of [5, 5, 20, 1]) log.push(frame(n))
    expect(taken(log, 11)).toEqual([5, 5])
    expect(taken(log, 11)).toEqual([20])
    expect(taken(log, 11)).toEqual([1])
  })

  test('a new socket repeats what the node has not', () => {
    const log = new Log()
    for (const n of [1, 2, 3, 4]) log.push(frame(n))
    taken(log)
    log.received(1)
    log.push(frame(5))
    log.rewind(2)
    expect(taken(log)).toEqual([3, 4, 5])
    expect(log.bytes).toBe(3 + 4 + 5)
  })

  test('a node that claims more than was sent gets no more forgotten', () => {
    const log = new Log()
    log.push(frame(1))
    taken(log)
    log.push(frame(2))
    log.received(99)
    expect(taken(log)).toEqual([2])
  })

  const rng = random()
  test(`every frame arrives once and in order, however often the socket is lost (seed ${rng.seed})`, () => {
    const log = new Log()
    let pushed = 0
    let arrived = 0 // at the node
    for (let i = 0; i < 20_000; i++) {
      switch (rng.below(5)) {
        case 0:
        case 1:
          log.push(frame(++pushed % 97))
          break
        case 2:
          for (const size of taken(log, rng.below(200))) {
            if (rng.below(10) === 0) break // the rest of the batch is lost with the socket
            expect(size).toBe(++arrived % 97)
          }
          log.rewind(arrived)
          break
        case 3:
          log.received(rng.below(arrived + 1))
          break
        case 4:
          log.rewind(arrived)
      }
    }
    expect(arrived).toBeGreaterThan(1000)
  })
})
