// Messages for started protocols on their way to the page's handlers. Each
// (peer, protocol) is a conversation of its own: in order, one at a time.

import type { Handler, Incoming, Message } from './api.js'
import { encode } from './cbor.js'
import { asyncDispose } from './dispose.js'
import type { ParleyError } from './errors.js'
import { Fifo } from './fifo.js'
import * as f from './frames.js'

/** One message that came, until it is settled. */
interface Delivery {
  readonly id: number
  readonly session: number
  readonly message: Message
}

/** Where answers go; `room` is a promise while too many wait there. */
interface Writer {
  write(frame: Uint8Array<ArrayBuffer>): unknown
  room(): Promise<void> | undefined
}

export class Inbox {
  readonly #writer: Writer
  readonly #report: (error: unknown) => void
  readonly #listeners = new Map<string, Listener>()
  #session = 0 // deliveries of an earlier one need no answer any more

  constructor(writer: Writer, report: (error: unknown) => void) {
    this.#writer = writer
    this.#report = report
  }

  /** Whether somebody listens; with a handler, whether it is that one. */
  has(protocol: string, handler?: Handler): boolean {
    const listener = this.#listeners.get(protocol)
    return listener !== undefined && (handler === undefined || listener.handler === handler)
  }

  /** `ended` is called when it ends, with the error that ended it if there is one. */
  listen(protocol: string, handler: Handler, ended: (error?: unknown) => void): void {
    this.#listeners.set(protocol, { handler, ended, conversations: new Map() })
  }

  /** Ends it; what was not begun is refused. */
  unlisten(protocol: string, error?: unknown): void {
    const listener = this.#listeners.get(protocol)
    this.#listeners.delete(protocol)
    listener?.ended(error)
    for (const queue of listener?.conversations.values() ?? []) {
      for (let d = queue.shift(); d; d = queue.shift()) this.#refuse(d, 'not-started', 'the protocol was stopped')
    }
  }

  /** Nothing comes any more. */
  close(error: unknown): void {
    for (const { ended } of this.#listeners.values()) ended(error)
  }

  /** The session is over: its senders were told, so what was not begun is dropped. */
  lost(): void {
    this.#session++
    for (const { conversations } of this.#listeners.values()) {
      for (const queue of conversations.values()) while (queue.shift());
    }
  }

  /** A frame of the kind MESSAGE. */
  message(parts: unknown[]): void {
    const [id, from, protocol, data, flags] = parts as [number, string, string, never, number]
    const message = { from, protocol, data, wantsReply: (flags & f.wantsReply) !== 0 }
    const delivery = { id, session: this.#session, message }
    const listener = this.#listeners.get(protocol)
    if (!listener) return this.#refuse(delivery, 'not-started', 'the protocol was stopped')
    const queue = listener.conversations.get(from)
    if (queue) return queue.push(delivery)
    void this.#converse(listener, from, delivery)
  }

  async #converse(listener: Listener, from: string, first: Delivery): Promise<void> {
    const queue = new Fifo<Delivery>()
    listener.conversations.set(from, queue)
    for (let d: Delivery | undefined = first; d; d = queue.shift()) {
      await this.#handle(listener.handler, d)
      const room = this.#writer.room()
      if (room) await room
    }
    listener.conversations.delete(from)
  }

  async #handle(handler: Handler, d: Delivery): Promise<void> {
    try {
      const reply = await handler(d.message)
      this.#settle(d, encode(d.message.wantsReply ? [f.REPLY, d.id, reply] : [f.HANDLED, d.id]))
    } catch (error) {
      this.#refuse(d, 'refused', error instanceof Error ? error.message : String(error))
      if (!(error instanceof Refusal)) this.#report(error)
    }
  }

  #refuse(d: Delivery, code: ParleyError['code'], text: string): void {
    this.#settle(d, encode([f.REFUSE, d.id, code, text.slice(0, 1024)]))
  }

  #settle(d: Delivery, frame: Uint8Array<ArrayBuffer>): void {
    if (d.session === this.#session) this.#writer.write(frame)
  }
}

interface Listener {
  readonly handler: Handler
  readonly ended: (error?: unknown) => void
  readonly conversations: Map<string, Fifo<Delivery>>
}

/** A refusal that the page meant: nothing to report. */
class Refusal extends Error {}

/** The messages of a protocol as a loop. The handler waits until the loop asks for the next one. */
export class Listening implements AsyncIterableIterator<Incoming> {
  readonly #stop: () => Promise<void>
  readonly #waiting = new Fifo<Received>()
  readonly #asked = new Fifo<{ resolve: (r: IteratorResult<Incoming>) => void; reject: (error: unknown) => void }>()
  #current: Received | undefined
  #ended = false
  #error: { error: unknown } | undefined

  constructor(stop: () => Promise<void>) {
    this.#stop = stop
  }

  /** The handler of the protocol. */
  readonly handle: Handler = (message) => {
    const received = new Received(message)
    const asked = this.#asked.shift()
    if (asked) {
      this.#current = received
      asked.resolve({ done: false, value: received })
    } else this.#waiting.push(received)
    return received.settled
  }

  next(): Promise<IteratorResult<Incoming>> {
    this.#current?.done()
    this.#current = this.#waiting.shift()
    if (this.#current) return Promise.resolve({ done: false, value: this.#current })
    if (this.#error) {
      const { error } = this.#error
      this.#error = undefined
      return Promise.reject(error)
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve, reject) => this.#asked.push({ resolve, reject }))
  }

  /** Leaving the loop counts the last message as handled and stops listening. */
  async return(): Promise<IteratorResult<Incoming>> {
    this.#current?.done()
    this.end()
    await this.#stop()
    return { done: true, value: undefined }
  }

  /** Ends the loop, with an error where there is one. */
  end(error?: unknown): void {
    if (this.#ended) return
    this.#ended = true
    for (const received of this.#waiting) received.refuse('the protocol was stopped')
    while (this.#waiting.shift());
    const asked = [...this.#asked]
    if (error !== undefined && !asked.length) this.#error = { error }
    asked.forEach(({ resolve, reject }, i) => {
      if (error !== undefined && i === 0) reject(error)
      else resolve({ done: true, value: undefined })
    })
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async [asyncDispose](): Promise<void> {
    await this.return()
  }
}

class Received implements Incoming {
  readonly from: string
  readonly protocol: string
  readonly data: never
  readonly wantsReply: boolean
  readonly settled: Promise<unknown>
  #resolve!: (reply: unknown) => void
  #reject!: (error: unknown) => void

  constructor(message: Message) {
    this.from = message.from
    this.protocol = message.protocol
    this.data = message.data as never
    this.wantsReply = message.wantsReply
    this.settled = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
  }

  reply(data?: unknown): void {
    this.#resolve(data)
  }

  refuse(text = 'refused'): void {
    this.#reject(new Refusal(text))
  }

  done(): void {
    if (this.wantsReply) this.refuse('no reply')
    else this.#resolve(undefined)
  }
}
