// Compiles the demo, comments and all: what a browser shows is what one can
// learn from. With --check it compares with what is committed instead.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const out = mkdtempSync(join(tmpdir(), 'parley-web-'))
try {
  const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
  execFileSync(process.execPath, [tsc, '-p', here, '--rootDir', join(here, 'demo'), '--outDir', out], { stdio: 'inherit' })
  const path = join(here, 'demo/main.js')
  const text = readFileSync(join(out, 'main.js'), 'utf8')
  if (!process.argv.includes('--check')) writeFileSync(path, text)
  else if (readFileSync(path, 'utf8') !== text) {
    console.error('stale: web/demo/main.js; run "npm run build"')
    process.exitCode = 1
  }
} finally {
  rmSync(out, { recursive: true })
}
