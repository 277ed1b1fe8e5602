// The CBOR (RFC 8949) that frames are made of: definite lengths, text keys, no
// tag but 262, and limits checked before anything is allocated. A general codec
// has neither the limits nor the tag, and takes 1.5 to 5 times as long to write a
// frame; test/cbor.test.ts holds this one equal to such a codec.

import { ParleyError } from './errors.js'

/** Levels of arrays and maps in one frame: data may have 64, and stands at most four deep. */
const maxDepth = 68
/** Items in one array, pairs in one map. */
const maxItems = 131_072

/** Tag around a byte string that holds the text of a JSON value. */
const embeddedJson = 262

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

const malformed = (text: string, cause?: unknown) =>
  new ParleyError('malformed', text, cause === undefined ? {} : { cause })

/** Encodes one value. Throws `malformed` for what can't be sent. */
export function encode(value: unknown): Uint8Array<ArrayBuffer> {
  scratch.reset()
  writeValue(scratch, value, 0)
  return scratch.take()
}


/** Grows as it is written, and is used again for the next value. */
class Writer {
  #bytes = new Uint8Array(4096)
  #view = new DataView(this.#bytes.buffer)
  #at = 0

  reset(): void {
    this.#at = 0
  }

  /** A copy of what was written. A buffer that one large value has made is given up. */
  take(): Uint8Array<ArrayBuffer> {
    const out = this.#bytes.slice(0, this.#at)
    if (this.#bytes.length > 1 << 20) {
      this.#bytes = new Uint8Array(4096)
      this.#view = new DataView(this.#bytes.buffer)
    }
    return out
  }

  #room(n: number): void {
    if (this.#at + n <= this.#bytes.length) return
    const bigger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#at + n))
    bigger.set(this.#bytes.subarray(0, this.#at))
    this.#bytes = bigger
    this.#view = new DataView(bigger.buffer)
  }

  byte(b: number): void {
    this.#room(1)
    this.#bytes[this.#at++] = b
  }

  /** The first bytes of an item: its major type and a number up to 2^53-1. */
  head(major: number, n: number): void {
    this.#room(9)
    const m = major << 5
    if (n < 24) {
      this.#bytes[this.#at++] = m | n
    } else if (n < 0x100) {
      this.#bytes[this.#at++] = m | 24
      this.#bytes[this.#at++] = n
    } else if (n < 0x10000) {
      this.#bytes[this.#at++] = m | 25
      this.#view.setUint16(this.#at, n)
      this.#at += 2
    } else if (n < 0x100000000) {
      this.#bytes[this.#at++] = m | 26
      this.#view.setUint32(this.#at, n)
      this.#at += 4
    } else {
      this.#bytes[this.#at++] = m | 27
      this.#view.setUint32(this.#at, Math.floor(n / 0x100000000))
      this.#view.setUint32(this.#at + 4, n >>> 0)
      this.#at += 8
    }
  }

  float(n: number): void {
    this.#room(9)
    this.#bytes[this.#at++] = 0xfb
    this.#view.setFloat64(this.#at, n)
    this.#at += 8
  }

  bytes(b: Uint8Array): void {
    this.head(2, b.length)
    this.raw(b)
  }

  raw(b: Uint8Array): void {
    this.#room(b.length)
    this.#bytes.set(b, this.#at)
    this.#at += b.length
  }

  text(s: string): void {
    const start = this.#at
    this.#room(9 + s.length * 3)
    this.head(3, s.length) // right when the text is ASCII, which it mostly is
    const from = this.#at
    if (s.length < 40 && this.#ascii(s)) return
    const { written } = encoder.encodeInto(s, this.#bytes.subarray(from))
    if (written !== s.length) {
      this.#bytes.copyWithin(start + headSize(written), from, from + written) // before a longer head takes its place
      this.#at = start
      this.head(3, written)
    }
    this.#at += written
  }

  #ascii(s: string): boolean {
    const from = this.#at
    for (let i = 0; i < s.length; i++) {
      const c = s.charCodeAt(i)
      if (c > 127) return false
      this.#bytes[from + i] = c
    }
    this.#at = from + s.length
    return true
  }
}

const headSize = (n: number) => (n < 24 ? 1 : n < 0x100 ? 2 : n < 0x10000 ? 3 : 5)

const scratch = new Writer()

function writeValue(w: Writer, value: unknown, depth: number): void {
  switch (typeof value) {
    case 'string':
      return w.text(value)
    case 'number':
      return writeNumber(w, value)
    case 'boolean':
      return w.byte(value ? 0xf5 : 0xf4)
    case 'undefined': // as an item of an array, or all of the data: JSON.stringify makes null of it too
      return w.byte(0xf6)
    case 'object':
      return value === null ? w.byte(0xf6) : writeObject(w, value, depth)
  }
  throw malformed(`data can't hold a ${typeof value}`)
}

function writeNumber(w: Writer, n: number): void {
  if (Number.isSafeInteger(n) && !Object.is(n, -0)) {
    if (n >= 0) w.head(0, n)
    else w.head(1, -1 - n)
  } else if (Number.isFinite(n)) w.float(n)
  else throw malformed(`data can't hold ${n}`)
}

function writeObject(w: Writer, value: object, depth: number): void {
  if (ArrayBuffer.isView(value)) return w.bytes(new Uint8Array(value.buffer, value.byteOffset, value.byteLength))
  if (value instanceof ArrayBuffer) return w.bytes(new Uint8Array(value))
  if (depth >= maxDepth) throw malformed(`data is nested deeper than ${maxDepth} levels`)
  if (Array.isArray(value)) {
    limitItems(value.length)
    w.head(4, value.length)
    for (const item of value) writeValue(w, item, depth + 1)
    return
  }
  const json = (value as { toJSON?: unknown }).toJSON
  if (typeof json === 'function') {
    const plain: unknown = json.call(value)
    if (plain !== value) return writeValue(w, plain, depth + 1)
  }
  if (value instanceof Map || value instanceof Set) {
    throw malformed(`data can't hold a ${value.constructor.name}: use a plain object or an array`)
  }
  const entries = Object.entries(value).filter(([, v]) => v !== undefined)
  limitItems(entries.length)
  w.head(5, entries.length)
  for (const [name, v] of entries) {
    w.text(name)
    writeValue(w, v, depth + 1)
  }
}

function limitItems(n: number): void {
  if (n > maxItems) throw malformed(`data has ${n} items in one array or object, limit ${maxItems}`)
}

/** A frame: its kind, the elements behind, and how many bytes it took. */
export interface Frame {
  readonly kind: number
  readonly parts: unknown[]
  readonly size: number
}

/** Decodes a message: frames, one behind the other. Throws `malformed`. */
export function* decodeFrames(bytes: Uint8Array): Generator<Frame> {
  const r = new Reader(bytes)
  while (r.more) {
    const start = r.at
    const parts = r.value(0)
    if (!Array.isArray(parts)) throw malformed('a frame is not an array')
    const kind: unknown = parts[0]
    if (typeof kind !== 'number' || !Number.isSafeInteger(kind) || kind < 0) throw malformed('a frame has no kind')
    yield { kind, parts: parts.slice(1), size: r.at - start }
  }
}

/** Decodes one value and nothing behind it. Throws `malformed`. */
export function decode(bytes: Uint8Array): unknown {
  const r = new Reader(bytes)
  const value = r.value(0)
  if (r.more) throw malformed('bytes behind the value')
  return value
}

class Reader {
  at = 0
  readonly #bytes: Uint8Array
  readonly #view: DataView

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get more(): boolean {
    return this.at < this.#bytes.length
  }

  value(depth: number): unknown {
    const first = this.#byte()
    const major = first >> 5
    const info = first & 31
    switch (major) {
      case 0:
        return this.#number(info)
      case 1:
        return -1 - this.#number(info)
      case 2:
        return new Uint8Array(this.#take(this.#number(info))) // a copy
      case 3:
        return this.#text(this.#number(info))
      case 4:
        return this.#array(this.#count(info, depth, 1), depth)
      case 5:
        return this.#map(this.#count(info, depth, 2), depth)
      case 6:
        return this.#tagged(info)
    }
    return this.#simple(info)
  }

  #need(n: number): void {
    if (n > this.#bytes.length - this.at) throw malformed('the frame ends too early')
  }

  #byte(): number {
    this.#need(1)
    return this.#bytes[this.at++]!
  }

  #take(n: number): Uint8Array {
    this.#need(n)
    return this.#bytes.subarray(this.at, (this.at += n))
  }

  #number(info: number): number {
    if (info < 24) return info
    if (info > 27) throw malformed('indefinite lengths are not allowed')
    const size = 1 << (info - 24)
    this.#need(size)
    const at = this.at
    this.at += size
    switch (info) {
      case 24:
        return this.#bytes[at]!
      case 25:
        return this.#view.getUint16(at)
      case 26:
        return this.#view.getUint32(at)
    }
    return this.#view.getUint32(at) * 0x100000000 + this.#view.getUint32(at + 4)
  }

  /** The length of an array or map, whose items take at least a byte each. */
  #count(info: number, depth: number, each: number): number {
    if (depth >= maxDepth) throw malformed(`nested deeper than ${maxDepth} levels`)
    const n = this.#number(info)
    if (n > maxItems) throw malformed(`more than ${maxItems} items`)
    this.#need(n * each)
    return n
  }

  #text(n: number): string {
    const bytes = this.#take(n)
    if (n < 24) {
      let s = ''
      let i = 0
      for (; i < n && bytes[i]! < 128; i++) s += String.fromCharCode(bytes[i]!)
      if (i === n) return s
    }
    try {
      return decoder.decode(bytes)
    } catch (cause) {
      throw malformed('text is not valid UTF-8', cause)
    }
  }

  #array(n: number, depth: number): unknown[] {
    const out = new Array<unknown>(n)
    for (let i = 0; i < n; i++) out[i] = this.value(depth + 1)
    return out
  }

  #map(n: number, depth: number): { [name: string]: unknown } {
    const out: { [name: string]: unknown } = {}
    for (let i = 0; i < n; i++) {
      const first = this.#byte()
      if (first >> 5 !== 3) throw malformed('a key is not text')
      const name = this.#text(this.#number(first & 31))
      if (Object.hasOwn(out, name)) throw malformed('a key is there twice')
      const value = this.value(depth + 1)
      if (name === '__proto__') {
        Object.defineProperty(out, name, { value, enumerable: true, configurable: true, writable: true })
      } else out[name] = value
    }
    return out
  }

  #tagged(info: number): unknown {
    if (this.#number(info) !== embeddedJson) throw malformed('an unknown tag')
    const first = this.#byte()
    if (first >> 5 !== 2) throw malformed('embedded JSON is not a byte string')
    const text = this.#text(this.#number(first & 31))
    try {
      return JSON.parse(text)
    } catch (cause) {
      throw malformed('embedded JSON is not JSON', cause)
    }
  }

  #simple(info: number): unknown {
    switch (info) {
      case 20:
        return false
      case 21:
        return true
      case 22:
        return null
      case 25:
        return finite(half(this.#number(25)))
      case 26:
        this.#need(4)
        return finite(this.#view.getFloat32((this.at += 4) - 4))
      case 27:
        this.#need(8)
        return finite(this.#view.getFloat64((this.at += 8) - 8))
    }
    throw malformed('an unknown simple value')
  }
}

function finite(n: number): number {
  if (!Number.isFinite(n)) throw malformed('a number that is not finite')
  return n
}

function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 31
  const fraction = bits & 1023
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction ? NaN : sign * Infinity
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}
