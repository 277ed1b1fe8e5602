// One session with the node over as many sockets as it takes.
//
//   write ─► log (numbered, kept until received) ─► flush, one message for all that waits ─► socket
//   socket ─► decode ─► control frames here, numbered ones counted and handed on
//   socket lost ─► back-off ─► hello with the session ─► what the other side has not is repeated

import type { Limits, Socket } from './api.js'
import { decodeFrames, encode, type Frame } from './cbor.js'
import { ParleyError, type Code } from './errors.js'
import * as f from './frames.js'
import { Log } from './log.js'

/** What the node said at the beginning. */
export interface Welcome {
  readonly peer: string
  readonly node: string
  readonly grace: number
  readonly limits: Limits
}

/** The owner of a session. It is called from within, one call at a time. */
export interface SessionOwner {
  /** A numbered frame came. */
  onFrame(frame: Frame): void
  /** The node answers. If not resumed, the session is new: of the old one the first `sent` frames had been written. */
  onOnline(welcome: Welcome, resumed: boolean, sent: number): void
  /** It doesn't any more, or not yet. */
  onOffline(error: ParleyError, retryIn: number): void
  /** The end. */
  onClosed(error: ParleyError): void
}

export interface SessionOptions {
  dial(signal: AbortSignal): Promise<Socket>
  /** What hello says besides the session. */
  hello(): { identity?: string | undefined; key?: string | undefined }
  retry: { min: number; max: number }
}

/** Without a frame for so long the node is asked whether it is there … */
const idleTime = 25_000
/** … and taken for lost when it does not answer for so long. */
const answerTime = 10_000
/** How much goes into one message, unless one frame is larger. */
const batchBytes = 256 << 10
/** With so much that the node has not acknowledged, handlers wait: their replies would only pile up. */
const backlogBytes = 16 << 20

const OPEN = 1

export class Session {
  readonly #owner: SessionOwner
  readonly #options: SessionOptions
  readonly #ended = new AbortController()

  // the session, over all sockets
  #token: Uint8Array | undefined
  #log = new Log()
  #received = 0 // numbered frames of the node
  #frameLimit = 64 << 10
  #waiters: (() => void)[] = [] // for a smaller backlog

  // the socket
  #socket: Socket | undefined
  #online = false
  #control: Uint8Array[] = []
  #flushing = false
  #told = 0 // how many received frames the node knows of
  #untold = 0 // bytes of those it doesn't
  #heard = 0 // when the last message came
  #ackTimer: Timer
  #idleTimer: Timer
  #bye: ParleyError | undefined
  #drop: ((error: ParleyError, fatal?: boolean) => void) | undefined

  // between sockets
  #attempt = 0
  #wake: (() => void) | undefined
  #hurry = false // asked to look while a try was under way, which may have begun too early

  constructor(owner: SessionOwner, options: SessionOptions) {
    this.#owner = owner
    this.#options = options
  }

  get online(): boolean {
    return this.#online
  }

  /** Waits until there is room for replies; undefined where there is. */
  room(): Promise<void> | undefined {
    if (this.#log.bytes < backlogBytes || this.#ended.signal.aborted) return undefined
    return new Promise((resolve) => this.#waiters.push(resolve))
  }

  /** Lives until close(), or until the node ends the session for good. */
  async run(): Promise<void> {
    while (!this.#ended.signal.aborted) {
      const { error, fatal } = await this.#connection()
      this.#online = false
      if (this.#ended.signal.aborted) return
      if (fatal) return this.#end(error)
      const delay = this.#hurry ? 0 : this.#delay(error)
      this.#hurry = false
      this.#owner.onOffline(error, delay)
      if (!this.#ended.signal.aborted) await this.#pause(delay)
    }
  }

  /** Puts a numbered frame on its way and returns its number. It never blocks. */
  write(frame: Uint8Array<ArrayBuffer>): number {
    const n = this.#log.push(frame)
    if (this.#online) this.#flushSoon()
    return n
  }

  /** Looks now whether the node is there, instead of when the timer says so. */
  probe(): void {
    if (this.#wake) {
      this.#attempt = 0
      this.#wake()
    } else if (!this.#online) {
      this.#hurry = true
    } else if (Date.now() - this.#heard > 5000) this.#ask()
  }

  /** Says goodbye and ends. What is still to be written goes first. */
  close(error: ParleyError): void {
    if (this.#ended.signal.aborted) return
    const socket = this.#socket
    if (this.#online && socket?.readyState === OPEN) {
      this.#flush()
      socket.send(encode([f.BYE, 'closed', '']))
    }
    this.#end(error)
    socket?.close(1000)
  }

  #end(error: ParleyError): void {
    this.#online = false
    this.#ended.abort()
    clearTimeout(this.#ackTimer)
    clearTimeout(this.#idleTimer)
    this.#drop?.(error)
    this.#wake?.()
    this.#release()
    this.#owner.onClosed(error)
  }

  // ── one socket ──

  async #connection(): Promise<{ error: ParleyError; fatal: boolean }> {
    let socket: Socket
    try {
      socket = await this.#options.dial(this.#ended.signal)
    } catch (cause) {
      const error = cause instanceof ParleyError ? cause : new ParleyError('unreachable', String(cause), { cause })
      return { error, fatal: error.code === 'malformed' || error.code === 'unsupported' }
    }
    const gone = await this.#serve(socket)
    socket.onopen = socket.onmessage = socket.onclose = null
    socket.onerror = () => {}
    clearTimeout(this.#ackTimer)
    clearTimeout(this.#idleTimer)
    this.#socket = this.#drop = undefined
    return gone
  }

  #serve(socket: Socket): Promise<{ error: ParleyError; fatal: boolean }> {
    return new Promise((resolve) => {
      this.#socket = socket
      this.#bye = undefined
      this.#control = []
      this.#heard = Date.now()
      this.#drop = (error, fatal = false) => {
        resolve({ error, fatal })
        if (fatal) socket.close(4002, error.code)
        else socket.close()
      }
      socket.onerror = () => {}
      socket.onclose = (event: { code: number; reason?: string }) => {
        const fatal = event.code === 1000 || event.code === 1002 || event.code === 1008
        const code: Code = event.code === 1008 ? 'forbidden' : event.code === 1013 ? 'limit' : 'closed'
        const text = event.reason || (fatal ? 'the node ended the session' : 'the connection to the node was lost')
        resolve({ error: this.#bye ?? new ParleyError(code, text), fatal })
      }
      socket.onmessage = (event: { data: unknown }) => this.#message(event.data)
      socket.send(this.#hello())
      this.#deadline('the node did not answer in time')
    })
  }

  #hello(): Uint8Array<ArrayBuffer> {
    const resume = this.#token && { session: this.#token, received: this.#received }
    return encode([f.HELLO, { v: 2, ...this.#options.hello(), ...resume }])
  }

  #message(data: unknown): void {
    this.#heard = Date.now()
    try {
      if (!(data instanceof ArrayBuffer)) throw new ParleyError('malformed', 'the node sent text')
      for (const frame of decodeFrames(new Uint8Array(data))) {
        if (frame.kind >= f.firstNumbered) this.#numbered(frame)
        else this.#controlFrame(frame)
      }
    } catch (cause) {
      if (!(cause instanceof ParleyError)) throw cause
      this.#drop?.(cause, true)
    }
  }

  #numbered(frame: Frame): void {
    if (!this.#online) throw new ParleyError('malformed', 'the node began without a welcome')
    this.#received++
    this.#untold += frame.size
    if (this.#received - this.#told >= f.ackFrames || this.#untold >= f.ackBytes) this.#flushSoon()
    else this.#ackTimer ??= setTimeout(() => this.#flush(), f.ackDelay)
    this.#owner.onFrame(frame)
  }

  #controlFrame({ kind, parts }: Frame): void {
    switch (kind) {
      case f.WELCOME:
        return this.#welcome(parts[0] as Partial<Welcome & { v: number; session: Uint8Array; resumed: boolean; received: number }>)
      case f.RECEIVED:
        this.#log.received(Number(parts[0]))
        return this.#release()
      case f.PING:
        this.#control.push(encode([f.PONG, parts[0]]))
        return this.#flushSoon()
      case f.BYE: {
        const [code, text, retryAfter] = parts as [Code, string, number | undefined]
        this.#bye = new ParleyError(code, text, { retryAfter })
      }
    }
  }

  #welcome(w: Partial<Welcome & { v: number; session: Uint8Array; resumed: boolean; received: number }>): void {
    const { v, session, resumed = false, received = 0, peer, node = '', grace = 30_000, limits } = w ?? {}
    if (v !== 2 || !(session instanceof Uint8Array) || typeof peer !== 'string' || !limits || this.#online) {
      throw new ParleyError('unsupported', 'the node speaks another version of the protocol')
    }
    const sent = this.#log.sent
    this.#token = session
    this.#frameLimit = limits.frame
    if (resumed) this.#log.rewind(received)
    else {
      this.#log = new Log()
      this.#received = 0
    }
    this.#release()
    this.#told = this.#received
    this.#untold = 0
    this.#attempt = 0
    this.#online = true
    this.#hurry = false
    this.#watch()
    this.#flushSoon()
    this.#owner.onOnline({ peer, node, grace, limits }, resumed, sent)
  }

  // ── writing ──

  #flushSoon(): void {
    if (this.#flushing) return
    this.#flushing = true
    queueMicrotask(() => {
      this.#flushing = false
      this.#flush()
    })
  }

  /** Writes all that waits, in messages of some 256 KiB. */
  #flush(): void {
    clearTimeout(this.#ackTimer)
    this.#ackTimer = undefined
    const socket = this.#socket
    if (!this.#online || socket?.readyState !== OPEN) return
    if (this.#told !== this.#received) {
      this.#told = this.#received
      this.#untold = 0
      this.#control.push(encode([f.RECEIVED, this.#received]))
    }
    const limit = Math.min(batchBytes, this.#frameLimit)
    while (this.#control.length || this.#log.waiting) {
      const batch = this.#control
      this.#control = []
      this.#log.take(batch, limit)
      socket.send(join(batch))
    }
  }

  #release(): void {
    if (this.#log.bytes >= backlogBytes && !this.#ended.signal.aborted) return
    for (const resolve of this.#waiters.splice(0)) resolve()
  }

  // ── is the node there ──

  #watch(): void {
    clearTimeout(this.#idleTimer)
    const idle = Date.now() - this.#heard
    if (idle >= idleTime) return this.#ask()
    this.#idleTimer = setTimeout(() => this.#watch(), idleTime - idle)
  }

  #ask(): void {
    this.#control.push(encode([f.PING, this.#received]))
    this.#flush()
    this.#deadline('the node does not answer any more')
  }

  #deadline(text: string): void {
    const asked = this.#heard
    clearTimeout(this.#idleTimer)
    this.#idleTimer = setTimeout(() => {
      if (this.#heard === asked || !this.#online) this.#drop?.(new ParleyError('unreachable', text))
      else this.#watch()
    }, answerTime)
  }

  // ── between two sockets ──

  #delay(error: ParleyError): number {
    const { min, max } = this.#options.retry
    const step = Math.min(max, min * 2 ** this.#attempt++)
    return Math.max(error.retryAfter ?? 0, Math.round(step * (0.5 + Math.random() / 2)))
  }

  #pause(delay: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        this.#wake = undefined
        resolve()
      }
      const timer = setTimeout(done, delay)
      this.#wake = done
    })
  }
}

type Timer = ReturnType<typeof setTimeout> | undefined

function join(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  if (parts.length === 1) return parts[0] as Uint8Array<ArrayBuffer>
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0))
  let at = 0
  for (const part of parts) {
    out.set(part, at)
    at += part.length
  }
  return out
}
