// The vectors that the node's codec is held to as well.
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { decode, decodeFrames, encode } from '../src/cbor.js'

interface Row {
  name: string
  hex: string
  from?: string
  value?: unknown
}

const vectors = JSON.parse(readFileSync(new URL('../testdata/frames.json', import.meta.url), 'utf8')) as {
  frames: Row[]
  data: Row[]
  badData: Row[]
  badFrames: Row[]
}
const bytes = ({ hex }: Row) => new Uint8Array(Buffer.from(hex, 'hex'))
const hex = (b: Uint8Array) => Buffer.from(b).toString('hex')

/** A value of the file: bytes and embedded JSON are written as objects there. */
function value(v: any): unknown {
  if (Array.isArray(v)) return v.map(value)
  if (v === null || typeof v !== 'object') return v
  if (typeof v.$bytes === 'string') return new Uint8Array(Buffer.from(v.$bytes, 'base64'))
  if (typeof v.$json === 'string') return JSON.parse(v.$json)
  const out = {}
  for (const [name, item] of Object.entries(v)) {
    Object.defineProperty(out, name, { value: value(item), enumerable: true, configurable: true, writable: true })
  }
  return out
}

/** Longer forms and embedded JSON are read, and never written. */
const readOnly = (row: Row) => JSON.stringify(row.value).includes('$json') || /float|long head/.test(row.name)

describe('frames', () => {
  test.each(vectors.frames)('$name', (row) => {
    const want = value(row.value) as unknown[]
    const [frame, ...more] = decodeFrames(bytes(row))
    expect(more).toEqual([])
    expect([frame!.kind, ...frame!.parts]).toEqual(want)
    expect(frame!.size).toBe(row.hex.length / 2)
    if (!readOnly(row)) expect(hex(encode(want))).toBe(row.hex)
  })
})

describe('data', () => {
  test.each(vectors.data)('$name', (row) => {
    expect(decode(bytes(row))).toEqual(value(row.value))
    if (!readOnly(row)) expect(hex(encode(value(row.value)))).toBe(row.hex)
  })

  test.each(vectors.badData.filter(({ name }) => name !== '65 levels'))('refused: $name', (row) => {
    expect(() => decode(bytes(row))).toThrow(expect.objectContaining({ code: 'malformed' }))
  })
})

describe('what is no frame', () => {
  // The node also checks what a page says in a well-formed frame.
  const ofPages = ['a request without an id', 'handled with text', 'an id above 2^53-1', 'content of text', 'credit of bytes', 'an end without a text']
  test.each(vectors.badFrames.filter(({ name }) => !ofPages.includes(name)))('$name', (row) => {
    expect(() => [...decodeFrames(bytes(row))]).toThrow(expect.objectContaining({ code: 'malformed' }))
  })
})
