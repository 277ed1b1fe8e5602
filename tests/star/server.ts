// Star servers for tests: parley's, as a process of its own.
import { spawn, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { onThatPort } from '../e2e/parley.js'

/** Nanoseconds, as star.Options has times. */
export const seconds = (n: number): number => Math.round(n * 1e9)

/** star.Options, as far as tests set it. */
export interface Options {
  Port?: number
  OpenJoins?: boolean
  AnyMultiaddr?: boolean
  Refresh?: number
  Drain?: number
  Names?: string[]
  TrustedProxies?: string[]
  Admin?: string
  Policy?: string
  TLS?: Record<string, string>
  Limits?: Record<string, number>
  Sockets?: Record<string, number>
  Times?: Record<string, number>
  Streams?: Record<string, number>
}

/** A file that all tests share: key.pem, cert.pem, star.pfx (passphrase "secret"), open.pfx. */
export const file = (name: string): string => join(process.env.PARLEY_STAR_PROGRAMS!, name)

/** A server without challenge that takes every address. */
export const open: Options = { OpenJoins: true, AnyMultiaddr: true }

export class Star {
  readonly #process: ChildProcess
  readonly #ended: Promise<void>
  readonly #options: Options
  #output = ''

  private constructor(options: Options, program: string, args: string[]) {
    this.#options = options
    const { PARLEY_STAR_PROGRAMS: _, ...env } = process.env // no setting of parley
    this.#process = spawn(file(program), args, { env, stdio: ['pipe', 'pipe', 'inherit'] })
    this.#ended = new Promise((resolve) => this.#process.once('close', () => resolve()))
  }

  /** Starts one on a free port; challenge and strict addresses are on unless told. */
  static start(options: Options = {}): Promise<Star> {
    return new Star(options, 'starserver', [JSON.stringify({ Drain: seconds(0.5), ...options })]).#listening()
  }

  /** Starts `parley star` with flags, on a free port. */
  static program(...flags: string[]): Promise<Star> {
    return new Star({}, 'parley', ['star', '-p', '0', '--host', '127.0.0.1', '--admin', '', ...flags]).#listening()
  }

  async #listening(): Promise<Star> {
    await new Promise<void>((resolve, reject) => {
      this.#process.stdout!.on('data', (chunk: Buffer) => {
        this.#output += chunk
        if (/^Listening on: .+\n/m.test(this.#output)) resolve()
      })
      void this.#ended.then(() => reject(new Error(`the star ended: ${this.#output}`)))
    })
    return this
  }

  /** The same one again at the same port, after its end. */
  again(): Promise<Star> {
    return onThatPort(() => Star.start({ ...this.#options, Port: this.port }))
  }

  get url(): string {
    return /^Listening on: (\S+)/m.exec(this.#output)![1]!
  }

  get port(): number {
    return Number(new URL(this.url).port)
  }

  get output(): string {
    return this.#output
  }

  /** A star address here; without an id just the server's. */
  address(id?: string): string {
    return `/ip4/127.0.0.1/tcp/${this.port}/${this.url.startsWith('https') ? 'wss' : 'ws'}/p2p-websocket-star` + (id ? `/ipfs/${id}` : '')
  }

  /** How it ended; null while it runs, and after a kill. */
  get code(): number | null {
    return this.#process.exitCode
  }

  /** Drains, or kills. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    this.#process.kill(signal)
    await this.#ended
  }

  signal(signal: 'SIGTERM'): void {
    this.#process.kill(signal)
  }

  get ended(): Promise<void> {
    return this.#ended
  }

  /** One of the server's gauges and counters. */
  async metric(name: string): Promise<number> {
    return (await this.metrics([name]))[0]!
  }

  /** Several of them, of one moment. */
  async metrics(names: string[]): Promise<number[]> {
    const answer = await fetch(`${this.url}/metrics`)
    if (answer.status !== 200) throw new Error(`metrics: status ${answer.status}`)
    const lines = (await answer.text()).split('\n')
    return names.map((name) => {
      const line = lines.find((l) => l.startsWith(`${name} `))
      if (!line) throw new Error(`no metric ${name}`)
      return Number(line.split(' ')[1])
    })
  }

  /** Throws unless the server serves. */
  async alive(): Promise<void> {
    const page = await fetch(this.url)
    if (page.status !== 200) throw new Error(`status ${page.status}`)
  }
}
