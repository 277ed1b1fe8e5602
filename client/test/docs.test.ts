import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

/** The names in a declaration file that stand without a comment: exports, and members of interfaces and classes. */
function undocumented(text: string): string[] {
  const missing: string[] = []
  let inside = ''
  let before = ''
  for (const line of text.split('\n')) {
    const top = /^export (?:declare )?(interface|class|type|const|function) (\w+)/.exec(line)
    if (top) {
      inside = top[1] === 'interface' || top[1] === 'class' ? top[2]! : ''
      if (!before.endsWith('*/')) missing.push(top[2]!)
    } else if (line.startsWith('}')) {
      inside = ''
    } else if (inside && /^ {4}[\w[]/.test(line) && !before.endsWith('*/')) {
      missing.push(`${inside}: ${line.trim()}`)
    }
    before = line
  }
  return missing
}

test('every public thing is documented', () => {
  expect(undocumented(readFileSync(new URL('../dist/parley.d.ts', import.meta.url), 'utf8'))).toEqual([])
  const bare = '/** A. */\nexport interface A {\n    /** B. */\n    b: number;\n    c?: string;\n}\nexport declare function d(): void;'
  expect(undocumented(bare)).toEqual(['A: c?: string;', 'd'])
})
