// Builds dist/parley.js and dist/parley.d.ts, the same bytes every time. With
// --check it compares them with what is committed instead.
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const here = dirname(fileURLToPath(import.meta.url))
const { version } = JSON.parse(readFileSync(join(here, 'package.json'), 'utf8'))
const banner = `/* parley ${version}, the page's side. MIT License. Types: parley.d.ts. Source: client/src. */`

async function script() {
  const { outputFiles } = await build({
    absWorkingDir: here,
    entryPoints: ['src/index.ts'],
    bundle: true,
    external: ['ws'],
    format: 'esm',
    target: ['es2022'],
    charset: 'utf8',
    minifySyntax: true,
    minifyWhitespace: true,
    lineLimit: 140,
    legalComments: 'none',
    banner: { js: banner },
    write: false,
  })
  return outputFiles[0].text
}

/** One file with everything public: the declarations of these, one behind the other. */
function types() {
  const out = mkdtempSync(join(tmpdir(), 'parley-types-'))
  try {
    const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
    execFileSync(process.execPath, [tsc, '-p', join(here, 'tsconfig.build.json'), '--outDir', out], { stdio: 'inherit' })
    const parts = ['errors', 'api', 'channelapi', 'index'].map((name) =>
      readFileSync(join(out, `${name}.d.ts`), 'utf8')
        .split('\n')
        .filter((line) => !/^(import|export)\b.*\bfrom '/.test(line) && !/^\/\/ /.test(line) && line !== 'export {};')
        .join('\n')
        .trim(),
    )
    return [banner, '/// <reference lib="es2022" />\n/// <reference lib="dom" />\n/// <reference lib="esnext.disposable" />', ...parts].join('\n\n') + '\n'
  } finally {
    rmSync(out, { recursive: true })
  }
}

const files = { 'parley.js': await script(), 'parley.d.ts': types() }
const stale = []
for (const [name, text] of Object.entries(files)) {
  const path = join(here, 'dist', name)
  if (process.argv.includes('--check')) {
    if (readFileSync(path, 'utf8') !== text) stale.push(`client/dist/${name}`)
  } else {
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, text)
    console.log(`client/dist/${name}: ${Buffer.byteLength(text)} bytes`)
  }
}
if (stale.length) {
  console.error(`stale: ${stale.join(', ')}; run "npm run build"`)
  process.exit(1)
}
