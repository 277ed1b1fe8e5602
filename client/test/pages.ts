import { afterEach, beforeEach, vi } from 'vitest'
import type { ConnectOptions, ParleyNode, StateChange } from '../src/api.js'
import { connect } from '../src/index.js'
import { FakeNode } from './fake.js'

/** A fake node and its pages for each test of a file; time stands still but for `pass`. */
export function setup() {
  const world = {
    node: new FakeNode(),
    pages: [] as ParleyNode[],
    /** Connects a page. */
    async page(identity = 'alice', options: ConnectOptions = {}): Promise<ParleyNode> {
      const page = await connect({ url: 'ws://node/ws', identity, WebSocket: world.node.WebSocket, ...options })
      world.pages.push(page)
      return page
    },
    /** Lets time pass, and everything happen that is due, sockets included. */
    async pass(ms = 0): Promise<void> {
      for (const end = Date.now() + ms; ; ) {
        for (let turn = 0; turn < 12; turn++) await new Promise((resolve) => setImmediate(resolve))
        if (Date.now() >= end) return
        await vi.advanceTimersByTimeAsync(Math.min(50, end - Date.now()))
      }
    },
    /** The frames of a kind that pages sent. */
    frames: (kind: number) => world.node.seen.filter(([k]) => k === kind).map(([, ...parts]) => parts),
  }
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] })
    world.node = new FakeNode()
    world.pages = []
  })
  afterEach(async () => {
    for (const page of world.pages) await page.close()
    await world.pass()
    world.node.forget()
    vi.useRealTimers()
  })
  return world
}

/** How a promise stands: its value, its error's code, or 'pending'. */
export function watch(promise: Promise<unknown>): { now: unknown; error?: any } {
  const state: { now: unknown; error?: any } = { now: 'pending' }
  promise.then(
    (value) => (state.now = value),
    (error) => {
      state.now = error.code
      state.error = error
    },
  )
  return state
}

/** The changes of state of a page, in short. */
export function states(page: ParleyNode): string[] {
  const seen: string[] = []
  page.on('state', ({ state, resumed, error }: StateChange) => {
    seen.push(state === 'online' ? (resumed ? 'resumed' : 'new') : `${state}: ${error?.code}`)
  })
  return seen
}

/** The first n of an iterable. */
export async function take<T>(from: AsyncIterable<T>, n: number): Promise<T[]> {
  const out: T[] = []
  for await (const item of from) if (out.push(item) === n) break
  return out
}
