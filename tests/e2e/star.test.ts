// Two nodes that have nothing but a star in common: their pages talk, see the path,
// and talk again after the star was restarted.
import { spawn, type ChildProcess } from 'node:child_process'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { launch, person } from './browser.js'
import { onThatPort, Parley } from './parley.js'

let browser: Browser
const ending: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  browser = await launch()
})
afterEach(async () => {
  for (const end of ending.splice(0).reverse()) await end().catch(() => {})
})
afterAll(() => browser.close())

/** `parley star`, as a process of its own. */
class Star {
  readonly #process: ChildProcess
  readonly #ended: Promise<void>
  #output = ''

  private constructor(port: number) {
    this.#process = spawn(process.env.PARLEY_BIN!, ['star', '--host', '127.0.0.1', '--port', `${port}`, '--drain', '1s'], {
      env: { ...process.env, PARLEY_BIN: undefined, PARLEY_STAR_ADMIN: '' },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#ended = new Promise((resolve) => this.#process.once('close', () => resolve()))
  }

  static async start(port = 0): Promise<Star> {
    const star = new Star(port)
    ending.push(() => star.stop())
    await new Promise<void>((resolve, reject) => {
      const read = (chunk: Buffer) => {
        star.#output += chunk
        if (/^Listening on: .+\n/m.test(star.#output)) resolve()
      }
      star.#process.stdout!.on('data', read)
      star.#process.stderr!.on('data', read)
      void star.#ended.then(() => reject(new Error(`the star ended: ${star.#output}`)))
    })
    return star
  }

  get url(): string {
    return /^Listening on: (\S+)/m.exec(this.#output)![1]!
  }

  get port(): number {
    return Number(new URL(this.url).port)
  }

  get multiaddr(): string {
    return `/ip4/127.0.0.1/tcp/${this.port}/ws/p2p-websocket-star`
  }

  /** Bytes that it has carried. */
  async carried(): Promise<number> {
    const text = await (await fetch(`${this.url}/metrics`)).text()
    return Number(/^parley_star_stream_bytes_total (\S+)/m.exec(text)![1])
  }

  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    this.#process.kill(signal)
    await this.#ended
  }
}

/** A node without a socket for peers, to which the star is all there is. */
async function node(star: Star): Promise<Parley> {
  const parley = await Parley.start({ args: ['--set', `p2p.listen=${star.multiaddr}`] })
  ending.push(() => parley.stop())
  return parley
}

async function visit(parley: Parley, name: string): Promise<{ page: Page; errors: string[] }> {
  const { context, errors } = await person(browser, name)
  ending.push(() => context.close())
  const page = await context.newPage()
  await page.goto(parley.link)
  await page.locator('#state[data-state=online]').waitFor({ state: 'attached' })
  return { page, errors }
}

const sees = (page: Page, text: string) => page.locator('#log .text', { hasText: text }).first().waitFor()
const row = (page: Page, name: string) => page.locator('#list button', { hasText: name })

async function say(page: Page, text: string): Promise<void> {
  await page.locator('#text').fill(text)
  await page.locator('#text').press('Enter')
}

interface Socket {
  local: number
  remote: number
  listens: boolean
}

/** The internet sockets that a process has, by the kernel's own tables. */
function sockets(pid: number): { tcp: Socket[]; udp: Socket[] } {
  const own = new Set<string>()
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1]
      if (inode) own.add(inode)
    } catch {
      // it was closed meanwhile
    }
  }
  const port = (address: string) => parseInt(address.split(':')[1]!, 16)
  const read = (name: string): Socket[] =>
    readFileSync(`/proc/${pid}/net/${name}`, 'utf8')
      .trim()
      .split('\n')
      .slice(1)
      .map((line) => line.trim().split(/\s+/))
      .filter((cells) => own.has(cells[9]!))
      .map((cells) => ({ local: port(cells[1]!), remote: port(cells[2]!), listens: cells[3] === '0A' }))
  return { tcp: [...read('tcp'), ...read('tcp6')], udp: [...read('udp'), ...read('udp6')] }
}

/** Fails unless a node has sockets to its page and to the star alone. */
function reachesTheStarAlone(parley: Parley, star: Star): void {
  if (process.platform !== 'linux') return
  const { tcp, udp } = sockets(parley.pid)
  expect(udp).toEqual([])
  expect(tcp.filter((s) => s.local !== parley.port && s.remote !== star.port)).toEqual([])
  expect(tcp.some((s) => s.remote === star.port)).toBe(true)
}

describe('nodes that reach nothing but a star', () => {
  test('their pages talk, see the path, and talk again after the star was restarted', async () => {
    let star = await Star.start()
    const one = await node(star)
    const other = await node(star)
    const ada = await visit(one, 'Ada Lovelace')
    const bo = await visit(other, 'Bo')
    await row(ada.page, 'Bo').waitFor()
    await row(bo.page, 'Ada Lovelace').waitFor()
    await say(ada.page, 'Is there anybody?')
    await sees(bo.page, 'Is there anybody?')

    await row(bo.page, 'Ada Lovelace').click()
    await row(ada.page, 'Bo').click()
    await say(bo.page, 'Here, behind a firewall')
    await sees(ada.page, 'Here, behind a firewall')
    await say(ada.page, 'So am I')
    await sees(bo.page, 'So am I')
    await ada.page.locator('#about', { hasText: 'star' }).waitFor()
    await bo.page.locator('#about', { hasText: 'star' }).waitFor()
    reachesTheStarAlone(one, star)
    reachesTheStarAlone(other, star)
    const before = await star.carried()
    await say(ada.page, `It all goes over the star: ${'byte by byte, '.repeat(70)}`)
    await sees(bo.page, 'It all goes over the star')
    expect((await star.carried()) - before).toBeGreaterThan(70 * 14)
    if (process.env.SHOTS) await ada.page.screenshot({ path: `${process.env.SHOTS}/star.png` })

    const port = star.port
    await star.stop()
    await say(ada.page, 'Into the silence')
    star = await onThatPort(() => Star.start(port))
    await sees(bo.page, 'Into the silence')
    await say(bo.page, 'You are back')
    await sees(ada.page, 'You are back')
    await ada.page.locator('#about', { hasText: 'star' }).waitFor()
    reachesTheStarAlone(one, star)
    reachesTheStarAlone(other, star)
    if (process.env.SHOTS) await bo.page.screenshot({ path: `${process.env.SHOTS}/star-again.png` })
    expect([...ada.errors, ...bo.errors]).toEqual([])
  }, 300_000)
})
