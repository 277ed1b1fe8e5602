// What can be seen of a node from outside: its metrics, its memory.
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs'
import type { Parley } from './parley.js'

/** The value of a metric, all its series together; `what` picks one by its label. */
export async function metric(node: Parley, name: string, what = ''): Promise<number> {
  const answer = await fetch(`${node.url}/_parley/metrics`, { headers: { authorization: `Bearer ${node.token}` } })
  const lines = (await answer.text()).split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
  return lines.filter((line) => line.includes(what)).reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
}

/** Resident memory of a process in bytes, now and at most so far. */
export function resident(pid: number): { now: number; most: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const of = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)![1]) * 1024
  return { now: of('VmRSS'), most: of('VmHWM') }
}

/** How often a text is in a process's memory. */
export function findInMemory(pid: number, text: string): number {
  const wanted = Buffer.from(text)
  const memory = openSync(`/proc/${pid}/mem`, 'r')
  const buffer = Buffer.alloc(4 << 20)
  let found = 0
  try {
    for (const line of readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')) {
      const [, from, to, rights] = /^([0-9a-f]+)-([0-9a-f]+) (\S+)/.exec(line) ?? []
      if (!rights?.startsWith('rw') || line.endsWith(']') && !line.endsWith('[heap]')) continue
      const end = BigInt(`0x${to}`)
      // pieces overlap, so that nothing is cut in two
      for (let at = BigInt(`0x${from}`); at < end; at += BigInt(buffer.length - wanted.length)) {
        const size = end - at < buffer.length ? Number(end - at) : buffer.length
        let read = 0
        try {
          read = readSync(memory, buffer, 0, size, at as never)
        } catch {
          break // reserved and not there
        }
        for (let i = buffer.indexOf(wanted); i >= 0 && i + wanted.length <= read; i = buffer.indexOf(wanted, i + 1)) found++
      }
    }
  } finally {
    closeSync(memory)
  }
  return found
}

/** The ports on which a process takes connections, UDP included, lowest first. */
export function listening(pid: number): number[] {
  const mine = new Set(readdirSync(`/proc/${pid}/fd`).map((fd) => linkOf(`/proc/${pid}/fd/${fd}`)))
  const ports = new Set<number>()
  for (const kind of ['tcp', 'tcp6', 'udp', 'udp6']) {
    for (const line of readFileSync(`/proc/${pid}/net/${kind}`, 'utf8').split('\n').slice(1)) {
      const [, local, , state, , , , , , inode] = line.trim().split(/\s+/)
      const waits = state === (kind.startsWith('tcp') ? '0A' : '07') // LISTEN; a UDP socket without another end
      if (waits && mine.has(`socket:[${inode}]`)) ports.add(parseInt(local!.split(':')[1]!, 16))
    }
  }
  return [...ports].sort((a, b) => a - b)
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path)
  } catch {
    return '' // closed meanwhile
  }
}
