// One channel of the page.
//
//   send ─► credit ─► session          what has none waits here
//   session ─► inbox ─► readable       what is read gives the node credit

import type { CallOptions, Channel, ChannelEnd, ChannelInfo } from './api.js'
import { givenUp, orGivenUp } from './abort.js'
import { encode } from './cbor.js'
import { asyncDispose } from './dispose.js'
import { ParleyError, type Code } from './errors.js'
import { Fifo } from './fifo.js'
import * as f from './frames.js'

/** Credit that a channel gives the node: what may come and not be read yet. */
export const pageWindow = 256 << 10
/** The smallest content costs so much credit. */
const minCost = 32

/** What a channel needs of its node. */
export interface ChannelOwner {
  readonly maxContent: number
  readonly maxQueue: number
  write(frame: Uint8Array<ArrayBuffer>): unknown
  channelInfo(id: number, options?: CallOptions): Promise<ChannelInfo>
}

interface Sending {
  readonly frame: Uint8Array<ArrayBuffer>
  readonly cost: number
  readonly sent: () => void
  readonly failed: (error: ParleyError) => void
}

type Bytes = Uint8Array<ArrayBuffer>

export class PageChannel implements Channel {
  readonly id: number
  readonly protocol: string
  readonly closed: Promise<ChannelEnd | null>
  readonly #owner: ChannelOwner
  #info: ChannelInfo

  // sending
  #credit = 0
  readonly #waiting = new Fifo<Sending>()
  #waitingBytes = 0
  #deaf: ParleyError | undefined // why nothing can be sent any more

  // receiving
  readonly #inbox = new Fifo<Bytes>()
  #read = 0 // cost of what was read since the last credit
  #asked = false // a reader waits
  #finished: { error: ParleyError | undefined } | undefined // nothing more comes

  #closing = false // this end has closed it in order
  #failed = false // this end ended it with an error
  #over = false // the node is through with it
  #settleClosed!: (end: ChannelEnd | null) => void
  #settleOver!: () => void
  readonly #isOver: Promise<void>
  readonly #stream: ReadableStream<Bytes>
  #reading!: ReadableStreamDefaultController<Bytes>
  #writable: WritableStream<BufferSource> | undefined
  #writing: WritableStreamDefaultController | undefined

  constructor(owner: ChannelOwner, id: number, protocol: string, info: ChannelInfo) {
    this.#owner = owner
    this.id = id
    this.protocol = protocol
    this.#info = info
    this.closed = new Promise((resolve) => (this.#settleClosed = resolve))
    this.#isOver = new Promise((resolve) => (this.#settleOver = resolve))
    this.#stream = new ReadableStream<Bytes>(
      {
        start: (controller) => void (this.#reading = controller),
        pull: () => this.#pull(),
        cancel: (reason) => this.close(reason === undefined ? undefined : { text: String(reason?.message ?? reason) }),
      },
      { highWaterMark: 0 }, // what nobody asked for stays in the inbox, and the node's credit with it
    )
  }

  get info(): ChannelInfo {
    return this.#info
  }

  async refresh(options?: CallOptions): Promise<ChannelInfo> {
    return (this.#info = await this.#owner.channelInfo(this.id, options))
  }

  // ── sending ──

  async send(data: BufferSource, { signal }: CallOptions = {}): Promise<void> {
    const content = bytesOf(data)
    if (this.#deaf) throw this.#deaf
    if (signal?.aborted) throw givenUp(signal)
    const { maxContent, maxQueue } = this.#owner
    if (content.length > maxContent) {
      throw new ParleyError('too-large', `message too large: ${content.length} bytes, limit ${maxContent}`)
    }
    const cost = Math.max(minCost, content.length)
    const frame = encode([f.CONTENT, this.id, content])
    if (!this.#waiting.length && cost <= this.#credit) return this.#write(frame, cost)
    if (this.#waitingBytes + cost > maxQueue) throw new ParleyError('queue-full', `${maxQueue} bytes are waiting in this channel already`)
    await this.#wait(frame, cost, signal)
  }

  /** Waits for credit. */
  #wait(frame: Bytes, cost: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = () => {
        this.#waiting.remove(sending)
        this.#waitingBytes -= cost
        sending.failed(givenUp(signal!))
        this.#pump() // a smaller one behind it may go
      }
      const done = () => signal?.removeEventListener('abort', abort)
      const sending: Sending = {
        frame,
        cost,
        sent: () => (done(), resolve()),
        failed: (error) => (done(), reject(error)),
      }
      signal?.addEventListener('abort', abort)
      this.#waiting.push(sending)
      this.#waitingBytes += cost
    })
  }

  #write(frame: Bytes, cost: number): void {
    this.#credit -= cost
    this.#owner.write(frame)
  }

  #pump(): void {
    for (let next = this.#waiting.first; next && next.cost <= this.#credit; next = this.#waiting.first) {
      this.#waiting.shift()
      this.#waitingBytes -= next.cost
      this.#write(next.frame, next.cost)
      next.sent()
    }
  }

  /** Nothing can be sent any more: what waits is given up. */
  #deafen(error: ParleyError): void {
    this.#deaf ??= error
    for (let s = this.#waiting.shift(); s; s = this.#waiting.shift()) s.failed(error)
    this.#waitingBytes = 0
  }

  get writable(): WritableStream<BufferSource> {
    return (this.#writable ??= new WritableStream<BufferSource>({
      start: (controller) => {
        this.#writing = controller
        if (this.#deaf) controller.error(this.#deaf)
        // abort() waits for a write that may wait for credit for ever
        controller.signal?.addEventListener('abort', () => this.#abort(controller.signal.reason))
      },
      write: (chunk) => this.#writeAll(bytesOf(chunk)),
      close: () => this.close(),
      abort: (reason) => this.#abort(reason),
    }))
  }

  async #writeAll(bytes: Bytes): Promise<void> {
    const size = this.#owner.maxContent
    for (let at = 0; at < bytes.length; at += size) await this.send(bytes.subarray(at, at + size))
  }

  #abort(reason: unknown): void {
    void this.close({ text: reason instanceof Error ? reason.message : reason === undefined ? 'aborted' : String(reason) })
  }

  // ── receiving ──

  get readable(): ReadableStream<Bytes> {
    return this.#stream
  }

  get messages(): AsyncIterable<Bytes> {
    return { [Symbol.asyncIterator]: () => iterate(this.#stream) }
  }

  #pull(): void {
    const content = this.#inbox.shift()
    if (content) return this.#give(content)
    this.#asked = true
    this.#finish()
  }

  #give(content: Bytes): void {
    this.#asked = false
    this.#reading.enqueue(content)
    this.#read += Math.max(minCost, content.length)
    if (this.#read >= pageWindow / 2 && !this.#over && !this.#finished) {
      this.#owner.write(encode([f.CREDIT, this.id, this.#read]))
      this.#read = 0
    }
    this.#finish()
  }

  /** Ends the stream once everything that came has been read. */
  #finish(): void {
    if (!this.#finished || this.#inbox.length) return
    const { error } = this.#finished
    try {
      if (error) this.#reading.error(error)
      else this.#reading.close()
    } catch {
      // it has been cancelled, or ended before
    }
  }

  // ── what the node says ──

  /** The channel is open, with so much credit. */
  opened(window: number, info: ChannelInfo): void {
    this.#info = info
    this.credit(window)
  }

  content(bytes: Bytes): void {
    if (this.#finished) return
    if (this.#asked) this.#give(bytes)
    else this.#inbox.push(bytes)
  }

  credit(n: number): void {
    this.#credit += n
    this.#pump()
  }

  /** It is over; with `more`, what comes is still to be read. */
  end(code: Code | '', text: string, more: boolean): void {
    const error = code === '' ? undefined : new ParleyError(code, text || code)
    const deaf = error ?? new ParleyError('closed', 'the channel is closed')
    if (!this.#deaf) this.#writing?.error(deaf)
    this.#deafen(deaf)
    this.#settleClosed(code === '' ? null : { code, text })
    if (more) return
    this.#over = true
    this.#finished ??= { error }
    this.#finish()
    this.#settleOver()
  }

  // ── closing ──

  async close(reason?: { code?: Code | undefined; text?: string | undefined }, { signal }: CallOptions = {}): Promise<void> {
    if (reason) this.#fail(reason.code ?? 'unknown', reason.text ?? '')
    else this.#closeInOrder()
    await orGivenUp(this.#isOver, signal)
  }

  #fail(code: Code, text: string): void {
    if (this.#over || this.#failed) return
    this.#failed = true
    this.#stopReading()
    this.#deafen(new ParleyError('closed', 'this end closed the channel'))
    this.#settleClosed({ code, text })
    this.#owner.write(encode([f.END, this.id, code, text.slice(0, 1024)]))
  }

  #closeInOrder(): void {
    if (this.#closing || this.#over || this.#failed) return
    this.#closing = true
    this.#stopReading()
    const last = encode([f.END, this.id, '', ''])
    if (this.#waiting.length) this.#waiting.push({ frame: last, cost: 0, sent: () => {}, failed: () => {} })
    else this.#owner.write(last)
    this.#deaf ??= new ParleyError('closed', 'this end closed the channel')
  }

  /** This end is not interested any more. */
  #stopReading(): void {
    while (this.#inbox.shift());
    this.#finished ??= { error: undefined }
    this.#finish()
  }

  async [asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** A loop over a stream that leaves the stream open. */
function iterate(stream: ReadableStream<Bytes>): AsyncIterator<Bytes> {
  const reader = stream.getReader()
  let left = false
  const leave = () => {
    if (!left) reader.releaseLock()
    left = true
  }
  return {
    async next() {
      if (left) return { done: true, value: undefined }
      try {
        const { done, value } = await reader.read()
        if (!done) return { done, value }
        leave()
        return { done, value: undefined }
      } catch (error) {
        leave()
        throw error
      }
    },
    async return() {
      leave()
      return { done: true, value: undefined }
    },
  }
}

function bytesOf(data: BufferSource): Bytes {
  if (data instanceof ArrayBuffer) return new Uint8Array(data)
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength)
  throw new ParleyError('malformed', 'a channel carries bytes: a Uint8Array, another view, or an ArrayBuffer')
}
