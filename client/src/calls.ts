// Requests and sends on their way: each waits in the lane of its conversation,
// is written when the windows allow it, and settles once.
//
//   call ─► lane (in order, one a conversation) ─► windows ─► session.write ─► result, error

import type { CallOptions, Limits } from './api.js'
import { givenUp } from './abort.js'
import { encode } from './cbor.js'
import { ParleyError, codes, type Code } from './errors.js'
import { Fifo } from './fifo.js'
import * as f from './frames.js'

/** Where frames go. */
interface Writer {
  readonly online: boolean
  write(frame: Uint8Array<ArrayBuffer>): number
}

interface CallSpec extends CallOptions {
  /** Calls of one lane are written in order; the empty one is never held up by others. */
  lane: string
  /** Makes the frame of this id. */
  frame(id: number): Uint8Array<ArrayBuffer>
  /** About how many bytes of the frame are not data, for the limit on one message. */
  around?: number
  /** Written again in a new session, because doing it twice does no harm. */
  repeat?: boolean
}

/** A call counts for so many bytes more than its frame, as it does at the node. */
const callCost = 256

interface Call {
  readonly id: number
  lane: Lane
  readonly frame: Uint8Array<ArrayBuffer>
  readonly cost: number // bytes for the windows
  readonly size: number // bytes of its data
  readonly repeat: boolean
  written: number // its number in the session, 0 while it waits
  settle: ((error: ParleyError | undefined, result?: unknown) => void) | undefined // undefined once it has
}

interface Lane {
  readonly key: string
  readonly waiting: Fifo<Call>
  under: number // calls under way
  bytes: number // of them
}

export class Calls {
  readonly #writer: Writer
  readonly #maxQueue: number
  readonly #lanes = new Map<string, Lane>()
  readonly #ready = new Set<Lane>() // with something waiting
  readonly #under = new Map<number, Call>() // written and not answered
  #limits: Limits = { frame: 0, message: 0, requests: 0, outbox: 0, outboxTotal: 0 }
  #nextId = 1
  #waitingBytes = 0
  #underBytes = 0
  #closed: ParleyError | undefined

  constructor(writer: Writer, maxQueue: number) {
    this.#writer = writer
    this.#maxQueue = maxQueue
  }

  /** Makes a call. It may wait in its lane; the promise settles in any case. */
  call(spec: CallSpec): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#closed) return reject(this.#closed)
      if (spec.signal?.aborted) return reject(givenUp(spec.signal))
      const id = this.#nextId++
      const frame = spec.frame(id) // throws for data that can't be sent, which rejects
      if (this.#waitingBytes + frame.length + callCost > this.#maxQueue) {
        return reject(new ParleyError('queue-full', `${this.#maxQueue} bytes are waiting in this page already`))
      }
      const call: Call = {
        id,
        lane: this.#lane(spec.lane),
        frame,
        cost: frame.length + callCost,
        size: frame.length - (spec.around ?? frame.length),
        repeat: !!spec.repeat,
        written: 0,
        settle: undefined,
      }
      const abort = () => this.#giveUp(call, givenUp(spec.signal!))
      spec.signal?.addEventListener('abort', abort)
      call.settle = (error, result) => {
        call.settle = undefined
        spec.signal?.removeEventListener('abort', abort)
        if (error) reject(error)
        else resolve(result)
      }
      const { lane } = call
      lane.waiting.push(call)
      this.#waitingBytes += call.cost
      this.#ready.add(lane)
      if (lane.waiting.length === 1 && this.#writer.online && this.#room(lane, call)) this.#write(lane)
    })
  }

  /** The node answered. */
  answered(id: unknown, error: ParleyError | undefined, result?: unknown): void {
    const call = this.#under.get(id as number)
    if (!call) return
    this.#end(call)
    call.settle?.(error, result)
    this.#pump()
  }

  /** The session goes on with these limits. */
  online(limits: Limits): void {
    this.#limits = limits
    this.#pump()
  }

  /** A new session began; of the old one the first `sent` frames had been written. */
  lost(sent: number): void {
    const again = new Map<string, Call[]>() // by lane, in their order
    for (const call of this.#under.values()) {
      this.#end(call)
      if (!call.settle) continue
      if (call.written > sent || call.repeat) again.set(call.lane.key, [...(again.get(call.lane.key) ?? []), call])
      else call.settle(new ParleyError('session-lost', 'the connection was away for too long: what became of this call is unknown'))
    }
    for (const [key, calls] of again) {
      const lane = this.#lane(key) // it may have been forgotten meanwhile
      for (const call of calls) {
        call.lane = lane
        call.written = 0
        this.#waitingBytes += call.cost
      }
      lane.waiting.prepend(calls)
      this.#ready.add(lane)
    }
  }

  /** Ends all calls, now and later. */
  close(error: ParleyError): void {
    this.#closed = error
    const calls = [...this.#under.values(), ...[...this.#ready].flatMap((lane) => [...lane.waiting])]
    this.#under.clear()
    this.#lanes.clear()
    this.#ready.clear()
    for (const call of calls) call.settle?.(error)
  }

  #lane(key: string): Lane {
    let lane = this.#lanes.get(key)
    if (!lane) this.#lanes.set(key, (lane = { key, waiting: new Fifo(), under: 0, bytes: 0 }))
    return lane
  }

  /** Writes what the windows allow, one call a lane in turn. */
  #pump(): void {
    for (let wrote = true; wrote && this.#writer.online; ) {
      wrote = false
      for (const lane of this.#ready) {
        if (!this.#room(lane, lane.waiting.first!)) continue
        this.#write(lane)
        wrote = true
      }
    }
  }

  #write(lane: Lane): void {
    const call = lane.waiting.shift()!
    this.#waitingBytes -= call.cost
    if (!lane.waiting.length) this.#ready.delete(lane)
    const tooLarge = this.#tooLarge(call)
    if (tooLarge) {
      this.#forget(lane)
      return call.settle?.(tooLarge)
    }
    lane.under++
    lane.bytes += call.cost
    this.#underBytes += call.cost
    this.#under.set(call.id, call)
    call.written = this.#writer.write(call.frame)
  }

  /**
   * A lane may take no more than what it leaves free, so a peer that doesn't
   * answer never takes the calls of all others. One call of a lane may always be
   * under way, however large it is.
   */
  #room(lane: Lane, call: Call): boolean {
    const { requests, outbox, outboxTotal } = this.#limits
    const free = requests - this.#under.size
    if (lane.key === '') return free > 0
    return (
      lane.under < free &&
      (lane.under === 0 || lane.bytes + call.cost <= outbox) &&
      (this.#underBytes === 0 || this.#underBytes + call.cost <= outboxTotal)
    )
  }

  #tooLarge(call: Call): ParleyError | undefined {
    const { message, frame } = this.#limits
    if (call.size > message) return new ParleyError('too-large', `message too large: ${call.size} bytes, limit ${message}`)
    if (call.frame.length > frame) return new ParleyError('too-large', `frame too large: ${call.frame.length} bytes, limit ${frame}`)
    return undefined
  }

  #giveUp(call: Call, error: ParleyError): void {
    const { lane } = call
    if (call.written) this.#writer.write(encode([f.CANCEL, call.id]))
    else {
      lane.waiting.remove(call)
      this.#waitingBytes -= call.cost
      if (!lane.waiting.length) this.#ready.delete(lane)
      this.#forget(lane)
    }
    call.settle?.(error)
    this.#pump()
  }

  #end(call: Call): void {
    this.#under.delete(call.id)
    this.#underBytes -= call.cost
    call.lane.under--
    call.lane.bytes -= call.cost
    this.#forget(call.lane)
  }

  #forget(lane: Lane): void {
    if (!lane.under && !lane.waiting.length) this.#lanes.delete(lane.key)
  }
}

/** Makes the error of a code that came over the wire; one that isn't known is `internal`. */
export function wireError(code: unknown, text: unknown, retryAfter?: unknown): ParleyError {
  const known = (codes as readonly unknown[]).includes(code) ? (code as Code) : 'internal'
  return new ParleyError(known, typeof text === 'string' ? text : String(code), {
    retryAfter: typeof retryAfter === 'number' ? retryAfter : undefined,
  })
}
