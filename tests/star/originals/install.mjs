// Installs the packages of both stacks when they are not there or when a lock
// file has changed: node install.mjs. Programs that start it at once wait for
// each other. No install script of a package runs: none needs a compiler.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const patience = 10 * 60_000 // for another one's install

function wanted(stack) {
  return createHash('sha256').update(readFileSync(join(here, stack, 'package-lock.json'))).digest('hex')
}

function installed(stack) {
  const mark = join(here, stack, 'node_modules', '.installed')
  return existsSync(mark) && readFileSync(mark, 'utf8') === wanted(stack)
}

function install(stack) {
  console.error(`== npm packages of the original star programs (${stack})`)
  const args = ['ci', '--no-progress', '--loglevel=error', '--fetch-retries=5'] // a registry has its moments
  const { status, error } = spawnSync('npm', args, { cwd: join(here, stack), stdio: ['ignore', 2, 2] })
  if (error || status !== 0) throw new Error(`npm ci in ${stack}: ${error?.message ?? `exit ${status}`}`)
  writeFileSync(join(here, stack, 'node_modules', '.installed'), wanted(stack))
}

async function locked(work) {
  const lock = join(here, '.lock.tmp')
  for (;;) {
    try {
      mkdirSync(lock)
      break
    } catch (error) {
      if (error.code !== 'EEXIST') throw error
    }
    const since = statSync(lock, { throwIfNoEntry: false })?.mtimeMs ?? Date.now()
    if (Date.now() - since > patience) rmdirSync(lock) // left by one that was killed
    await sleep(200)
  }
  try {
    work()
  } finally {
    rmdirSync(lock)
  }
}

const stacks = ['recent', '2019']
if (!stacks.every(installed)) await locked(() => stacks.filter((s) => !installed(s)).forEach(install))
