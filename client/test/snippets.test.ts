// What the documents show must work: their JavaScript, and that of the comments in
// the types, is checked against the types that are shipped.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'

const root = new URL('../..', import.meta.url).pathname
const documents = ['README.md', 'docs/manual.md', 'client/README.md', 'client/dist/parley.d.ts']

/** Names that the documents use and do not declare. */
const world = `
  import type { Channel, Message, ParleyNode, Room, SpaceRoom } from './parley.js'
  declare global {
    const node: ParleyNode, room: SpaceRoom & Room, ch: Channel, bob: string
    const file: File, bytes: Uint8Array<ArrayBuffer>, signal: AbortSignal, url: string, token: string, key: string
    const button: HTMLButtonElement
    const connect: typeof import('./parley.js').connect
    function show(...what: unknown[]): void
    function hello(name: string): void
    function serve(ch: Channel): Promise<void>
  }`

interface Snippet {
  file: string
  line: number
  text: string
}

/** The code of a document, elements of a page with an id declared as browsers do. */
function snippets(file: string): Snippet[] {
  const text = readFileSync(join(root, file), 'utf8')
  const found: Snippet[] = []
  for (const match of text.matchAll(/^( *\* |)```(js|ts|html)\n(.*?)^\1```/gms)) {
    const [, indent, language, body] = match
    let code = body!.replaceAll(indent!, '')
    if (language === 'html') {
      const ids = [...code.matchAll(/<(\w+) [^>]*?id="(\w+)"/g)].map(([, tag, id]) => `/** @type {HTMLElementTagNameMap['${tag}']} */ const ${id} = document.querySelector('#${id}');`)
      code = ids.join('\n') + /<script type="module">(.*?)<\/script>/s.exec(code)![1]
    }
    found.push({ file, line: text.slice(0, match.index).split('\n').length + 1, text: code.replaceAll("'/parley.js'", "'./parley.js'") })
  }
  return found
}

test('the JavaScript of the documents is right', () => {
  const folder = mkdtempSync(join(tmpdir(), 'parley-snippets-'))
  try {
    const all = documents.flatMap(snippets)
    for (const file of documents) expect(all.filter((s) => s.file === file).length, file).toBeGreaterThan(0)
    const dist = readFileSync(join(root, 'client/dist/parley.d.ts'), 'utf8')
    // The data is the page's own affair in JavaScript.
    writeFileSync(join(folder, 'parley.d.ts'), dist.replace(/^export type Data = .*?^};$/ms, 'export type Data = any;'))
    writeFileSync(join(folder, 'parley.js'), '')
    writeFileSync(join(folder, 'world.d.ts'), world)
    const names = all.map(({ file, line }) => `${file.replaceAll(/[/.]/g, '-')}-${line}.js`)
    all.forEach(({ text }, i) => writeFileSync(join(folder, names[i]!), `${text}\nexport {}\n`))
    writeFileSync(
      join(folder, 'tsconfig.json'),
      JSON.stringify({
        compilerOptions: { target: 'es2022', module: 'esnext', moduleResolution: 'bundler', lib: ['es2022', 'dom', 'dom.iterable', 'dom.asynciterable', 'esnext.disposable'],
          allowJs: true, checkJs: true, noEmit: true, strict: true, noImplicitAny: false, strictNullChecks: false, types: [] },
        files: ['world.d.ts', ...names],
      }),
    )
    expect(check(folder)).toBe('')
    writeFileSync(join(folder, names[0]!), `import { connect } from './parley.js'\n(await connect()).sendd(bob, 'chat', 1)\n`)
    expect(check(folder)).toMatch(/sendd/) // it can fail
  } finally {
    rmSync(folder, { recursive: true })
  }
}, 180_000)

/** What the compiler has to say. */
function check(folder: string): string {
  const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
  try {
    return execFileSync(process.execPath, [tsc, '-p', folder], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  } catch (error) {
    return (error as { stdout: string }).stdout
  }
}
