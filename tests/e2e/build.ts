// Builds the binary once for all files, unless PARLEY_BIN names one.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export default function build(): (() => void) | void {
  if (process.env.PARLEY_BIN) return
  const folder = mkdtempSync(join(tmpdir(), 'parley-bin-'))
  process.env.PARLEY_BIN = join(folder, 'parley')
  const root = new URL('../..', import.meta.url).pathname
  execFileSync('go', ['build', '-o', process.env.PARLEY_BIN, './cmd/parley'], { cwd: root, stdio: 'inherit' })
  return () => rmSync(folder, { recursive: true })
}
