import * as cborg from 'cborg'
import { describe, expect, test } from 'vitest'
import { decode, decodeFrames, encode } from '../src/cbor.js'
import { random } from './random.js'

const hex = (s: string) => new Uint8Array(Buffer.from(s.replace(/\s/g, ''), 'hex'))

describe('encode', () => {
  const rows: [string, unknown, string][] = [
    ['zero', 0, '00'],
    ['23 in the head', 23, '17'],
    ['24 in a byte', 24, '1818'],
    ['256 in two', 256, '190100'],
    ['65536 in four', 65536, '1a00010000'],
    ['2^53-1 in eight', Number.MAX_SAFE_INTEGER, '1b001fffffffffffff'],
    ['-1', -1, '20'],
    ['-2^53+1', Number.MIN_SAFE_INTEGER, '3b001ffffffffffffe'],
    ['2^53 as a float', 2 ** 53, 'fb4340000000000000'],
    ['-0 as a float', -0, 'fb8000000000000000'],
    ['1.5', 1.5, 'fb3ff8000000000000'],
    ['text', 'hé', '6368c3a9'],
    ['text whose bytes need a longer head than its characters', 'é'.repeat(20), '7828' + 'c3a9'.repeat(20)],
    ['null', null, 'f6'],
    ['undefined is null', undefined, 'f6'],
    ['true, false', [true, false], '82f5f4'],
    ['bytes', new Uint8Array([1, 2]), '420102'],
    ['bytes of another view', new Uint16Array([1]), '420100'],
    ['an ArrayBuffer', new Uint8Array([3]).buffer, '4103'],
    ['a map in its order', { b: 1, a: 2 }, 'a2616201616102'],
    ['undefined members left out', { a: undefined, b: 1 }, 'a1616201'],
    ['toJSON honoured', new Date(0), '7818' + Buffer.from('1970-01-01T00:00:00.000Z').toString('hex')],
  ]
  test.each(rows)('%s', (_, value, want) => expect(Buffer.from(encode(value)).toString('hex')).toBe(want))

  test.each([
    ['NaN', NaN],
    ['Infinity', -Infinity],
    ['a function', () => 0],
    ['a symbol', Symbol('x')],
    ['a bigint', 1n],
    ['a Map', new Map()],
    ['a cycle', cycle()],
    ['131,073 items', new Array(131_073).fill(0)],
  ])('refuses %s as malformed', (_, value) => {
    expect(() => encode({ value })).toThrow(expect.objectContaining({ code: 'malformed' }))
  })

  test('nests as deep as the node takes, and not without end', () => {
    expect(decode(encode(nested(68)))).toEqual(nested(68))
    expect(() => encode(nested(69))).toThrow(/68 levels/)
  })

  test('a failed value leaves nothing behind for the next one', () => {
    expect(() => encode(['x', NaN])).toThrow()
    expect(encode(1)).toEqual(hex('01'))
  })
})

describe('decode', () => {
  test.each([
    ['half 1.5', 'f93e00', 1.5],
    ['half subnormal', 'f90001', 5.960464477539063e-8],
    ['float', 'fa3fc00000', 1.5],
    ['embedded JSON', 'd9010647' + Buffer.from('{"a":1}').toString('hex'), { a: 1 }],
    ['a byte order mark is text', '63efbbbf', '\ufeff'],
    ['a long number in a short form', '1b0000000000000001', 1],
  ])('%s', (_, bytes, want) => expect(decode(hex(bytes))).toEqual(want))

  test.each([
    ['nothing', ''],
    ['bytes behind', '0000'],
    ['a length past the end', '5a7fffffff00'],
    ['a length of 2^63-1', '5b7fffffffffffffff'],
    ['an array longer than its bytes', '9a0001ffff'],
    ['a map of 2^32 pairs', 'baffffffff'],
    ['more than 131,072 items', '9a00020001' + '00'.repeat(131_073)],
    ['indefinite bytes', '5f4100ff'],
    ['an indefinite array', '9fff'],
    ['a reserved length', '1c'],
    ['a key that is no text', 'a10000'],
    ['a key twice', 'a2616100616100'],
    ['a tag that is not 262', 'c074'],
    ['tag 262 around text', 'd9010661 31'],
    ['tag 262 around no JSON', 'd9010641 7b'],
    ['invalid UTF-8', '62c328'],
    ['half a surrogate', '63eda080'],
    ['undefined', 'f7'],
    ['a simple value', 'f820'],
    ['69 levels', '81'.repeat(69) + '00'],
    ['infinity', 'f9fc00'],
    ['NaN', 'fb7ff8000000000000'],
    ['10^5 levels', '81'.repeat(100_000)],
  ])('refuses %s', (_, bytes) => {
    expect(() => decode(hex(bytes))).toThrow(expect.objectContaining({ code: 'malformed' }))
  })

  test('a key __proto__ is a member like any other (G-S10)', () => {
    const value = decode(encode(JSON.parse('{"__proto__":{"evil":1},"a":2}'))) as object
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype)
    expect(Object.keys(value)).toEqual(['__proto__', 'a'])
    expect('evil' in value).toBe(false)
  })

  test('bytes are copies, so a message that was kept keeps no others alive', () => {
    const message = encode([new Uint8Array([1, 2])])
    const [bytes] = decode(message) as [Uint8Array]
    expect(bytes.buffer.byteLength).toBe(2)
  })

  test('a message of several frames', () => {
    const frames = [...decodeFrames(new Uint8Array([...encode([16, 7, 'x']), ...encode([2, 5])]))]
    expect(frames).toEqual([
      { kind: 16, parts: [7, 'x'], size: 5 },
      { kind: 2, parts: [5], size: 3 },
    ])
  })

  test.each([['a map', 'a0'], ['an empty array', '80'], ['a negative kind', '8120'], ['a kind of text', '816161']])(
    '%s is no frame',
    (_, bytes) => expect(() => [...decodeFrames(hex(bytes))]).toThrow(expect.objectContaining({ code: 'malformed' })),
  )
})

describe('beside a general codec', () => {
  const rng = random()
  test(`what one writes the other reads (seed ${rng.seed})`, () => {
    for (let i = 0; i < 2000; i++) {
      const value = rng.value(4)
      const ours = encode(value)
      expect(cborg.decode(ours)).toEqual(value)
      expect(decode(cborg.encode(value, { float64: rng.below(2) === 0 }))).toEqual(value)
      expect(decode(ours)).toEqual(value)
    }
  })

  test(`bytes changed at random are refused or read, never worse (seed ${rng.seed})`, () => {
    for (let i = 0; i < 5000; i++) {
      const bytes = encode(rng.value(3))
      for (let n = 1 + rng.below(3); n > 0; n--) bytes[rng.below(bytes.length)] = rng.below(256)
      let value: unknown
      try {
        value = decode(bytes)
      } catch (error) {
        expect(error).toMatchObject({ code: 'malformed' })
        continue
      }
      expect(value).not.toBeUndefined()
    }
  })
})

function cycle(): object {
  const a: { self?: object } = {}
  a.self = a
  return a
}

function nested(levels: number): unknown {
  let value: unknown = 0
  for (let i = 0; i < levels; i++) value = i % 2 ? [value] : { a: value }
  return value
}
