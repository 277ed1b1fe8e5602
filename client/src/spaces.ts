// Spaces: what the page has joined, what it listens to there, and its channels.
// A new session is told of spaces and protocols again; channels end with it.

import type { Accepting, CallOptions, Channel, ChannelInfo, OpenOptions, Space, SpaceRoom } from './api.js'
import { givenUp, onAbort, orGivenUp } from './abort.js'
import { encode } from './cbor.js'
import { PageChannel, pageWindow } from './channel.js'
import { asyncDispose } from './dispose.js'
import { ParleyError, type Code } from './errors.js'
import { Fifo } from './fifo.js'
import * as f from './frames.js'
import { Upkeep } from './upkeep.js'

/** What spaces need of their node. */
export interface SpacesOwner {
  readonly maxContent: number
  readonly maxQueue: number
  write(frame: Uint8Array<ArrayBuffer>): unknown
  call(method: string, params: object, signal?: AbortSignal): Promise<unknown>
  report(error: unknown): void
}

/** An info as it is on the wire. */
type WireInfo = Omit<ChannelInfo, 'relay'> & { readonly relay: string }

function infoOf({ remote, verified, path, relay, rtt }: WireInfo): ChannelInfo {
  return { remote, verified, path, rtt, ...(relay ? { relay } : {}) }
}

export class Spaces {
  readonly owner: SpacesOwner
  readonly #rooms = new Map<string, JoinedRoom>()
  readonly #channels = new Map<number, PageChannel>()
  readonly #opening = new Set<number>() // of these, not open yet
  #nextId = 1
  #session = 0

  constructor(owner: SpacesOwner) {
    this.owner = owner
  }

  space(name: string): Space {
    return { name, join: (options) => this.#join(name, options) }
  }

  /** Counts sessions. */
  get session(): number {
    return this.#session
  }

  async #join(name: string, { signal }: CallOptions = {}): Promise<SpaceRoom> {
    if (signal?.aborted) throw givenUp(signal)
    for (let old = this.#rooms.get(name); old; old = this.#rooms.get(name)) {
      if (!old.leaving) throw new ParleyError('already-started', `this page has joined the space already: ${name}`)
      await orGivenUp(old.leaving, signal)
    }
    const room = new JoinedRoom(this, name)
    this.#rooms.set(name, room)
    try {
      await orGivenUp(room.joined(), signal)
    } catch (error) {
      const left = room.leave()
      if (!signal?.aborted) await left // who has given up waits for nothing
      throw error
    }
    return room
  }

  /** The room has left. */
  left(room: JoinedRoom): void {
    if (this.#rooms.get(room.space) === room) this.#rooms.delete(room.space)
  }

  // ── channels ──

  async open(space: string, peer: string, protocol: string, { signal, via, directOnly }: OpenOptions): Promise<Channel> {
    const id = this.#nextId
    this.#nextId += 2
    const ch = this.#channel(id, protocol, { remote: peer, verified: false, path: 'none', rtt: 0 })
    this.#opening.add(id)
    try {
      const params = { space, peer, protocol, channel: id, window: pageWindow, ...(via && { via }), ...(directOnly && { directOnly }) }
      const { window, info } = (await this.owner.call('open', params, signal)) as { window: number; info: WireInfo }
      ch.opened(window, infoOf(info))
    } catch (error) {
      this.#channels.delete(id)
      // it may be open already
      if (signal?.aborted) this.owner.write(encode([f.END, id, 'unknown', 'the call was given up']))
      throw error
    } finally {
      this.#opening.delete(id)
    }
    return ch
  }

  #channel(id: number, protocol: string, info: ChannelInfo): PageChannel {
    const { owner } = this
    const ch = new PageChannel(
      {
        get maxContent() {
          return owner.maxContent
        },
        maxQueue: owner.maxQueue,
        write: (frame) => owner.write(frame),
        channelInfo: async (channel, options) => infoOf((await owner.call('info', { channel }, options?.signal)) as WireInfo),
      },
      id,
      protocol,
      info,
    )
    this.#channels.set(id, ch)
    return ch
  }

  // ── what the node says ──

  content(id: number, bytes: Uint8Array<ArrayBuffer>): void {
    this.#channels.get(id)?.content(bytes)
  }

  credit(id: number, n: number): void {
    this.#channels.get(id)?.credit(n)
  }

  end(id: number, code: Code | '', text: string, flags = 0): void {
    const more = (flags & f.more) !== 0
    this.#channels.get(id)?.end(code, text, more)
    if (!more) this.#channels.delete(id)
  }

  incoming(id: number, space: string, protocol: string, window: number, info: WireInfo): void {
    const loop = this.#rooms.get(space)?.accepting(protocol)
    if (!loop) return void this.owner.write(encode([f.END, id, 'bad-space-hash', 'nobody listens to this protocol any more']))
    const ch = this.#channel(id, protocol, infoOf(info))
    ch.credit(window)
    loop.push(ch)
  }

  /** A new session: the node knows nothing of it all. */
  renew(): void {
    this.#session++
    this.#endAll('lost', 'the session with the node was lost')
    for (const room of this.#rooms.values()) room.renew()
  }

  /** The end of everything. */
  close(error: ParleyError, own: ParleyError | undefined): void {
    this.#endAll(error.code, error.message)
    for (const room of this.#rooms.values()) room.end(own)
    this.#rooms.clear()
  }

  #endAll(code: Code, text: string): void {
    for (const [id, ch] of this.#channels) {
      if (this.#opening.has(id)) continue // its call settles by itself, or is made again
      this.#channels.delete(id)
      ch.end(code, text, false)
    }
  }
}

class JoinedRoom implements SpaceRoom {
  readonly space: string
  readonly #spaces: Spaces
  readonly #membership: Upkeep<true>
  readonly #loops = new Map<string, Loop>()
  leaving: Promise<void> | undefined
  #left = false

  constructor(spaces: Spaces, name: string) {
    this.space = name
    this.#spaces = spaces
    const apply = async (wish: true | undefined) => void (await spaces.owner.call(wish ? 'join' : 'leave', { space: name }))
    this.#membership = new Upkeep<true>(apply, (error) => {
      spaces.owner.report(error)
      this.end(error)
      spaces.left(this)
    })
  }

  /** Resolves when the node has it. */
  joined(): Promise<void> {
    return this.#membership.want(true)
  }

  open(agent: string, protocol: string, options: OpenOptions = {}): Promise<Channel> {
    return this.#asMember(options.signal, () => this.#spaces.open(this.space, agent, protocol, options))
  }

  /** Makes a call of a member; again, where it waited and came before the join of a new session. */
  async #asMember<T>(signal: AbortSignal | undefined, call: () => Promise<T>): Promise<T> {
    for (;;) {
      this.#check()
      if (signal?.aborted) throw givenUp(signal)
      await orGivenUp(this.joined(), signal)
      const { session } = this.#spaces
      try {
        return await call()
      } catch (error) {
        const early = error instanceof ParleyError && error.code === 'not-joined' && session !== this.#spaces.session
        if (!early) throw error
      }
    }
  }

  accept(protocol: string, { signal }: CallOptions = {}): Accepting {
    this.#check()
    if (this.#loops.has(protocol)) throw new ParleyError('already-started', `this page listens to the protocol already: ${protocol}`)
    const { owner } = this.#spaces
    const apply = async (wish: true | undefined) => {
      const params = { space: this.space, protocol }
      if (!wish) await owner.call('unlisten', params)
      else if (!this.#left) await this.#asMember(undefined, () => owner.call('listen', { ...params, window: pageWindow }))
    }
    const loop: Loop = new Loop(apply, (error) => owner.report(error), () => this.#loops.delete(protocol))
    this.#loops.set(protocol, loop)
    loop.begin(signal)
    return loop
  }

  /** The loop over a protocol's channels. */
  accepting(protocol: string): Loop | undefined {
    return this.#loops.get(protocol)
  }

  leave({ signal }: CallOptions = {}): Promise<void> {
    return orGivenUp((this.leaving ??= this.#leave()), signal)
  }

  async #leave(): Promise<void> {
    if (this.#left) return
    this.end()
    await this.#membership.want(undefined).catch(() => {}) // an ended session has left, too
    this.#spaces.left(this)
  }

  async [asyncDispose](): Promise<void> {
    await this.leave()
  }

  renew(): void {
    this.#membership.renew()
    for (const loop of this.#loops.values()) loop.renew()
  }

  /** Ends the loops, with an error where there is one. */
  end(error?: unknown): void {
    this.#left = true
    for (const loop of [...this.#loops.values()]) loop.end(error)
  }

  #check(): void {
    if (this.#left) throw new ParleyError('not-joined', `this page has left the space: ${this.space}`)
  }
}

/** The channels of a protocol, until somebody asks for them. There are never more than a page may have. */
class Loop implements Accepting {
  readonly ready: Promise<void>
  readonly #listening: Upkeep<true>
  readonly #forget: () => void
  readonly #queue = new Fifo<PageChannel>()
  readonly #asked = new Fifo<{ resolve: (r: IteratorResult<Channel>) => void; reject: (error: unknown) => void }>()
  #begun!: { resolve: () => void; reject: (error: unknown) => void }
  #heedless: () => void = () => {} // the signal has nothing to end any more
  #ended = false
  #error: { error: unknown } | undefined

  constructor(apply: (wish: true | undefined) => Promise<void>, report: (error: unknown) => void, forget: () => void) {
    this.#forget = forget
    this.ready = new Promise((resolve, reject) => (this.#begun = { resolve, reject }))
    this.ready.catch(() => {}) // the loop tells
    this.#listening = new Upkeep<true>(apply, (error) => {
      report(error)
      this.end(error)
    })
  }

  begin(signal: AbortSignal | undefined): void {
    const stop = () => void this.return()
    this.#heedless = onAbort(signal, stop)
    this.#listening.want(true).then(this.#begun.resolve, (error: unknown) => this.end(error))
    if (signal?.aborted) stop()
  }

  renew(): void {
    this.#listening.renew()
  }

  push(ch: PageChannel): void {
    const asked = this.#asked.shift()
    if (asked) asked.resolve({ done: false, value: ch })
    else this.#queue.push(ch)
  }

  next(): Promise<IteratorResult<Channel>> {
    const ch = this.#queue.shift()
    if (ch) return Promise.resolve({ done: false, value: ch })
    if (this.#error) {
      const { error } = this.#error
      this.#error = undefined
      return Promise.reject(error)
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve, reject) => this.#asked.push({ resolve, reject }))
  }

  /** Leaving the loop stops listening, and refuses what nobody took. */
  async return(): Promise<IteratorResult<Channel>> {
    if (!this.#ended) {
      this.end()
      await this.#listening.want(undefined).catch(() => {}) // an ended session listens to nothing
    }
    return { done: true, value: undefined }
  }

  end(error?: unknown): void {
    if (this.#ended) return
    this.#ended = true
    this.#heedless()
    this.#forget()
    this.#begun.reject(error ?? new ParleyError('closed', 'the loop was left'))
    for (let ch = this.#queue.shift(); ch; ch = this.#queue.shift()) {
      void ch.close({ code: 'bad-space-hash', text: 'nobody listens to this protocol any more' })
    }
    if (error !== undefined && !this.#asked.length) this.#error = { error }
    for (let asked = this.#asked.shift(); asked; asked = this.#asked.shift()) {
      if (error === undefined) asked.resolve({ done: true, value: undefined })
      else asked.reject(error)
      error = undefined
    }
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async [asyncDispose](): Promise<void> {
    await this.return()
  }
}
