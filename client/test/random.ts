/** Random values of data from a seed, which PARLEY_SEED sets to repeat a run. */
export function random(seed = Number(process.env.PARLEY_SEED ?? Date.now() % 2 ** 31)) {
  let state = seed | 0
  const next = (): number => {
    // mulberry32
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (n: number) => Math.floor(next() * n)
  const text = () => Array.from({ length: below(40) }, () => characters[below(characters.length)]).join('')
  const characters = [...'abcäß€😀\u{1f468}\u200d\ufffd "\\\u0000']
  const leaves: (() => unknown)[] = [
    () => null,
    () => below(2) === 1,
    () => below(300),
    () => -1 - below(70_000), // never -0, which a general codec may write as 0
    () => below(2 ** 31) * below(2 ** 21),
    () => (next() - 0.5) * 10 ** below(300),
    text,
    () => Uint8Array.from({ length: below(40) }, () => below(256)),
  ]
  const value = (depth: number): unknown => {
    if (depth === 0 || below(3) > 0) return leaves[below(leaves.length)]!()
    if (below(2)) return Array.from({ length: below(6) }, () => value(depth - 1))
    return Object.fromEntries(Array.from({ length: below(6) }, (_, i) => [`${text()}${i}`, value(depth - 1)]))
  }
  return { seed, next, below, text, value }
}
