// What all files need: the original programs, and a star to test them with.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'

const root = new URL('../..', import.meta.url).pathname

export default function build(): () => void {
  execFileSync('node', [join(root, 'tests/star/originals/install.mjs')], { stdio: 'inherit' })
  const folder = mkdtempSync(join(tmpdir(), 'parley-star-'))
  for (const program of ['star/internal/starserver', 'star/internal/pullserver', 'star/cluster/natsservertest', 'cmd/parley']) {
    execFileSync('go', ['build', '-o', join(folder, basename(program)), `./${program}`], { cwd: root, stdio: 'inherit' })
  }
  execFileSync(join(folder, 'starserver'), ['-certs', folder])
  process.env.PARLEY_STAR_PROGRAMS = folder
  process.env.NODE_EXTRA_CA_CERTS = join(folder, 'cert.pem') // read at the start of each worker
  return () => rmSync(folder, { recursive: true })
}
