// Spaces and channels of the fake node: credit both ways, and each direction
// holds what has none.

import * as f from '../src/frames.js'
import type { Session } from './fake.js'

/** Credit that the node gives a page for a channel. */
export const nodeWindow = 256 << 10

/** One end of a channel, at a page. */
export interface End {
  readonly session: Session
  readonly id: number
  other: End
  credit: number // what the page takes
  left: number // what the page may send
  taken: number // of it, not granted again yet
  waiting: Uint8Array[] // for the page
  closing: boolean // by the other end: said behind what waits
  why: [code: string, text: string]
}

const cost = (b: Uint8Array) => Math.max(32, b.length)

/** The spaces and channels of one page at the fake node. */
export class FakeChannels {
  readonly session: Session
  joined = new Set<string>()
  listening = new Map<string, number>() // "space protocol", and the window
  ends = new Map<number, End>()
  #next = 2

  constructor(session: Session) {
    this.session = session
  }

  /** Serves a request; undefined where it is not one of spaces. */
  request(method: string, p: any): { result: unknown } | { code: string } | undefined {
    const key = `${p.space} ${p.protocol}`
    switch (method) {
      case 'join':
        if (this.joined.has(p.space)) return { code: 'already-started' }
        this.joined.add(p.space)
        return { result: null }
      case 'leave':
        this.joined.delete(p.space)
        return { result: null }
      case 'listen':
        if (!this.joined.has(p.space)) return { code: 'not-joined' }
        this.listening.set(key, p.window)
        return { result: null }
      case 'unlisten':
        this.listening.delete(key)
        return { result: null }
      case 'open':
        return this.#open(p, key)
      case 'info':
        return { result: this.#info(p.channel, 2.5) }
    }
    return undefined
  }

  #info(id: number, rtt: number) {
    return { remote: this.ends.get(id)!.other.session.peer, verified: true, path: 'relay', relay: 'peer-relay', rtt }
  }

  #open(p: any, key: string): { result: unknown } | { code: string } {
    if (!this.joined.has(p.space)) return { code: 'not-joined' }
    const to = [...this.session.node.sessions.values()].find((s) => s.peer === p.peer && s.channels.joined.has(p.space))
    if (!to) return { code: 'bad-to-id' }
    const window = to.channels.listening.get(key)
    if (window === undefined) return { code: 'bad-space-hash' }
    const end = (session: Session, id: number, credit: number) =>
      ({ session, id, credit, left: nodeWindow, taken: 0, waiting: [], closing: false, why: ['', ''] }) as unknown as End
    const near = end(this.session, p.channel, p.window)
    const far = end(to, to.channels.#next, window)
    to.channels.#next += 2
    near.other = far
    far.other = near
    this.ends.set(near.id, near)
    to.channels.ends.set(far.id, far)
    to.write([f.INCOMING, far.id, p.space, p.protocol, nodeWindow, to.channels.#info(far.id, 0)])
    return { result: { window: nodeWindow, info: this.#info(near.id, 0) } }
  }

  /** Serves a frame of a channel. */
  frame(kind: number, [id, ...rest]: any[]): void {
    const end = this.ends.get(id)
    if (!end) return
    if (kind === f.CREDIT) {
      end.credit += rest[0]
      return flush(end)
    }
    if (kind === f.END) return this.#ended(end, rest[0], rest[1])
    const bytes = rest[0] as Uint8Array
    end.left -= cost(bytes)
    if (end.left < 0) throw new Error('the page sent without credit')
    end.other.waiting.push(bytes)
    flush(end.other)
  }

  #ended(end: End, code: string, text: string): void {
    this.ends.delete(end.id)
    this.session.write([f.END, end.id, '', ''])
    breakEnd(end.other, code, text)
  }

  /** The page is gone. */
  gone(): void {
    for (const end of this.ends.values()) breakEnd(end.other, 'unknown', 'the page is gone')
    this.ends.clear()
    this.listening.clear()
    this.joined.clear()
  }
}

/** Ends one end of a channel, behind what waits for it. */
export function breakEnd(end: End, code: string, text: string): void {
  if (end.session.channels.ends.get(end.id) !== end || end.closing) return
  end.closing = true
  end.why = [code, text]
  if (end.waiting.length) end.session.write([f.END, end.id, code, text, f.more])
  flush(end)
}

/** Writes what the page's credit allows; what is taken gives the other page credit. */
function flush(end: End): void {
  for (let next = end.waiting[0]; next && cost(next) <= end.credit; next = end.waiting[0]) {
    end.waiting.shift()
    end.credit -= cost(next)
    end.session.write([f.CONTENT, end.id, next])
    const { other } = end
    other.taken += cost(next)
    if (other.taken < nodeWindow / 2 || other.session.channels.ends.get(other.id) !== other) continue
    other.left += other.taken
    other.session.write([f.CREDIT, other.id, other.taken])
    other.taken = 0
  }
  if (!end.closing || end.waiting.length) return
  end.session.channels.ends.delete(end.id)
  end.session.write([f.END, end.id, ...end.why])
}
