// Topics: what the node says of each is shared by all rooms that the page has of
// it. A room is one holder's view, with its own loops and callbacks.

import type { CallOptions, Member, Publication, Room, RoomEvents } from './api.js'
import { givenUp, onAbort, orGivenUp } from './abort.js'
import { decode, encode } from './cbor.js'
import { asyncDispose } from './dispose.js'
import { ParleyError } from './errors.js'
import { Emitter } from './events.js'
import { Fifo } from './fifo.js'
import { Upkeep } from './upkeep.js'

/** What a loop, or a room that nobody listens to yet, keeps at most. */
const keepMessages = 1024
const keepBytes = 4 << 20

/** What a topic needs of its node. */
export interface TopicOwner {
  readonly peer: string
  call(method: string, params: object): Promise<unknown>
  publish(topic: string, data: unknown, options?: CallOptions): Promise<void>
  lost(topic: string, count: number): void
  report(error: unknown): void
  /** The last room has left. */
  ended(topic: Topic): void
}

/** The wish for a topic: to be in it, saying this. A new object is a new wish. */
interface Presence {
  readonly state: unknown
}

export class Topic {
  readonly name: string
  readonly members = new Map<string, Member>()
  readonly owner: TopicOwner
  readonly #rooms = new Set<TopicRoom>()
  readonly #upkeep: Upkeep<Presence>
  #seen: { member: Member; joined: boolean }[] | undefined // changes since a session was first asked to subscribe

  constructor(name: string, owner: TopicOwner) {
    this.name = name
    this.owner = owner
    this.#upkeep = new Upkeep((wish, had) => this.#apply(wish, had), (error) => this.#failed(error))
  }

  get state(): unknown {
    return this.#upkeep.wish?.state ?? null
  }

  /** Adds a room; `state` undefined leaves the state as it is. */
  enter(room: TopicRoom, state: unknown): Promise<void> {
    this.#rooms.add(room)
    const wish = this.#upkeep.wish
    return this.#upkeep.want(wish && state === undefined ? wish : presence(state))
  }

  async leave(room: TopicRoom): Promise<void> {
    this.#rooms.delete(room)
    if (this.#rooms.size) return
    await this.#upkeep.want(undefined)
    if (!this.#rooms.size) this.owner.ended(this) // nobody has come back meanwhile
  }

  setState(state: unknown): Promise<void> {
    return this.#upkeep.want(presence(state))
  }

  /** A new session: the node doesn't know of the topic. What waits to be asked is asked there. */
  renew(): void {
    this.#seen = []
    this.#upkeep.renew()
  }

  close(error: unknown): void {
    for (const room of this.#rooms) room.end(error)
  }

  // ── what the node says ──

  publication(from: string, data: never, size: number): void {
    const publication = { topic: this.name, from, data }
    for (const room of this.#rooms) room.take(publication, size)
  }

  presence(peer: string, joined: boolean, state: never): void {
    if (peer === this.owner.peer) return
    const member = { peer, state: state ?? null }
    this.#seen?.push({ member, joined })
    if (joined) this.#here(member)
    else this.#gone(peer)
  }

  lost(count: number): void {
    for (const room of this.#rooms) room.tell('lost', { topic: this.name, count })
  }

  async #apply(wish: Presence | undefined, had: Presence | undefined): Promise<void> {
    if (!wish) {
      this.members.clear()
      return void (await this.owner.call('unsubscribe', { topic: this.name }))
    }
    if (!had) this.#seen = []
    try {
      const params = { topic: this.name, ...(wish.state === null ? {} : { state: wish.state }) }
      const { members } = (await this.owner.call('subscribe', params)) as { members: Member[] }
      if (this.#seen) this.#sync(members, this.#seen)
    } finally {
      this.#seen = undefined
    }
  }

  /** Makes the members those of a list and of the changes that came since it was made. */
  #sync(list: Member[], since: { member: Member; joined: boolean }[]): void {
    const now = new Map(list.filter((m) => m.peer !== this.owner.peer).map((m) => [m.peer, { peer: m.peer, state: m.state ?? null }]))
    for (const { member, joined } of since) {
      if (joined) now.set(member.peer, member as never)
      else now.delete(member.peer)
    }
    for (const peer of [...this.members.keys()]) if (!now.has(peer)) this.#gone(peer)
    for (const member of now.values()) this.#here(member as Member)
  }

  #here(member: Member): void {
    const before = this.members.get(member.peer)
    if (before && same(before.state, member.state)) return
    this.members.set(member.peer, member)
    for (const room of this.#rooms) room.tell(before ? 'change' : 'join', member)
  }

  #gone(peer: string): void {
    const member = this.members.get(peer)
    if (!member) return
    this.members.delete(peer)
    for (const room of this.#rooms) room.tell('leave', member)
  }

  /** The node doesn't take it up again after a reconnect. */
  #failed(error: unknown): void {
    this.owner.report(error)
    if (!this.#upkeep.wish) for (const room of this.#rooms) room.end(error)
  }
}

/** Snapshots a state, so that changing the object later changes nothing here. */
function presence(state: unknown = null): Presence {
  return { state: decode(encode(state)) }
}

function same(a: unknown, b: unknown): boolean {
  const x = encode(a)
  const y = encode(b)
  return x.length === y.length && x.every((byte, i) => byte === y[i])
}

export class TopicRoom extends Emitter<RoomEvents> implements Room {
  readonly ready: Promise<void>
  readonly #topic: Topic
  readonly #loops = new Set<Loop>()
  #early: Loop | undefined // what comes before somebody listens
  #abandon!: (error: unknown) => void // rejects `ready` if it is pending
  readonly #heedless: () => void // the signal has nothing to end any more
  #leaving: Promise<void> | undefined
  #ended = false
  #error: unknown

  constructor(topic: Topic, state: unknown, signal: AbortSignal | undefined) {
    super()
    this.#topic = topic
    this.#early = new Loop(() => {})
    this.ready = new Promise((resolve, reject) => {
      this.#abandon = reject
      if (signal?.aborted) reject(givenUp(signal))
      else topic.enter(this, state).then(resolve, reject)
    })
    this.ready.catch((error: unknown) => {
      this.end(error)
      topic.leave(this).catch(() => {})
    })
    const abort = () => void this.#leave(givenUp(signal!))
    this.#heedless = onAbort(signal, abort)
  }

  get topic(): string {
    return this.#topic.name
  }

  get members(): ReadonlyMap<string, Member> {
    return this.#topic.members
  }

  get state(): never {
    return this.#topic.state as never
  }

  set state(state: unknown) {
    this.#topic.setState(state).catch((error: unknown) => this.#topic.owner.report(error))
  }

  publish(data: unknown, options?: CallOptions): Promise<void> {
    return this.#topic.owner.publish(this.topic, data, options)
  }

  close({ signal }: CallOptions = {}): Promise<void> {
    return orGivenUp(this.#leave(new ParleyError('closed', 'the room was closed')), signal)
  }

  #leave(reason: ParleyError): Promise<void> {
    if (this.#ended) return this.#leaving ?? Promise.resolve()
    this.end()
    this.#abandon(reason)
    return (this.#leaving = this.#topic.leave(this).catch(() => {})) // an ended session has left, too
  }

  async [asyncDispose](): Promise<void> {
    await this.close()
  }

  [Symbol.asyncIterator](): AsyncIterator<Publication> {
    const loop = new Loop((count) => this.#dropped(count))
    loop.onReturn = () => this.#returned(loop)
    this.#handOver((p, size) => loop.push(p, size))
    if (this.#ended) loop.end(this.#error)
    this.#loops.add(loop)
    return loop
  }

  /** A loop was left: a room that was there for loops alone is done with. */
  #returned(loop: Loop): void {
    this.#loops.delete(loop)
    if (!this.#loops.size && !this.listenedTo) void this.close()
  }

  // ── from the topic ──

  take(publication: Publication, size: number): void {
    this.#early?.push(publication, size)
    for (const loop of this.#loops) loop.push(publication, size)
    this.emit('message', publication)
  }

  tell<K extends keyof RoomEvents>(type: K, detail: RoomEvents[K]): void {
    this.emit(type, detail)
  }

  end(error?: unknown): void {
    if (this.#ended) return
    this.#ended = true
    this.#error = error
    this.#heedless?.() // none yet where the topic ends in the constructor
    this.#early?.end(error)
    for (const loop of this.#loops) loop.end(error)
  }

  protected override listening(type: string): void {
    if (type === 'message') this.#handOver((p) => this.emit('message', p))
  }

  protected override failed(error: unknown): void {
    this.#topic.owner.report(error)
  }

  /** Gives what came early to the first who listens. */
  #handOver(to: (p: Publication, size: number) => void): void {
    const early = this.#early
    this.#early = undefined
    if (early) for (const { publication, size } of early.rest()) to(publication, size)
  }

  #dropped(count: number): void {
    this.emit('lost', { topic: this.topic, count })
    this.#topic.owner.lost(this.topic, count)
  }
}

/** One loop over a room's publications. Its queue is bounded: the oldest go first. */
class Loop implements AsyncIterator<Publication> {
  readonly #queue = new Fifo<{ publication: Publication; size: number }>()
  readonly #asked = new Fifo<{ resolve: (r: IteratorResult<Publication>) => void; reject: (error: unknown) => void }>()
  readonly #dropped: (count: number) => void
  #bytes = 0
  #ended = false
  #error: unknown
  onReturn: () => void = () => {}

  constructor(dropped: (count: number) => void) {
    this.#dropped = dropped
  }

  push(publication: Publication, size: number): void {
    if (this.#ended) return
    const asked = this.#asked.shift()
    if (asked) return asked.resolve({ done: false, value: publication })
    this.#queue.push({ publication, size })
    this.#bytes += size
    let dropped = 0
    while (this.#queue.length > keepMessages || (this.#bytes > keepBytes && this.#queue.length > 1)) {
      this.#bytes -= this.#queue.shift()!.size
      dropped++
    }
    if (dropped) this.#dropped(dropped)
  }

  next(): Promise<IteratorResult<Publication>> {
    const item = this.#queue.shift()
    if (item) {
      this.#bytes -= item.size
      return Promise.resolve({ done: false, value: item.publication })
    }
    if (this.#error !== undefined) {
      const error = this.#error
      this.#error = undefined
      return Promise.reject(error)
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve, reject) => this.#asked.push({ resolve, reject }))
  }

  async return(): Promise<IteratorResult<Publication>> {
    this.end()
    while (this.#queue.shift());
    this.onReturn()
    return { done: true, value: undefined }
  }

  rest(): Iterable<{ publication: Publication; size: number }> {
    return this.#queue
  }

  /** No more will come. What is queued is still given out. */
  end(error?: unknown): void {
    if (this.#ended) return
    this.#ended = true
    this.#error = error
    for (let asked = this.#asked.shift(); asked; asked = this.#asked.shift()) {
      if (this.#error !== undefined) {
        asked.reject(this.#error)
        this.#error = undefined
      } else asked.resolve({ done: true, value: undefined })
    }
  }
}
