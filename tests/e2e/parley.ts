// Real parley processes for tests: each has a folder of its own, and none meets
// the nodes of whoever else works on this machine.
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

export interface Options {
  /** Where it keeps what it keeps; a new folder unless told. */
  data?: string
  port?: number
  auth?: 'link' | 'none'
  /** Files of a site by path, instead of the demo. */
  site?: Record<string, string>
  /** Addresses of other nodes. */
  connect?: readonly string[]
  /** Of config/parley.toml, with `site`. */
  config?: string
  args?: string[]
  env?: Record<string, string>
}

/** Settings that keep a node on this machine, away from all others. */
const alone = ['p2p.mdns=false', 'p2p.dht=false', 'p2p.listen=/ip4/127.0.0.1/tcp/0,/ip4/127.0.0.1/udp/0/quic-v1']

/**
 * Starts a server anew where one was. Meanwhile the port is as free as any other:
 * somebody's connection may have it for a moment, even that of who looks for the server.
 */
export async function onThatPort<T>(start: () => Promise<T>): Promise<T> {
  for (let tries = 50; ; tries--) {
    try {
      return await start()
    } catch (error) {
      if (tries === 0) throw error
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
}

export class Parley {
  readonly #process: ChildProcess
  readonly #folder: string
  readonly #ended: Promise<void>
  readonly #options: Options
  #output = ''

  private constructor(options: Options, folder: string) {
    this.#options = options
    this.#folder = folder
    const { port = 0, auth = 'link', connect = [], args = [], env = {} } = options
    const flags = ['--no-open', '--linger', '--port', `${port}`, '--data', this.data, '--auth', auth, ...alone.flatMap((s) => ['--set', s])]
    const site = options.site ? [this.#writeSite(options.site)] : []
    this.#process = spawn(process.env.PARLEY_BIN!, ['serve', ...site, ...flags, ...connect.flatMap((a) => ['--connect', a]), ...args], {
      env: {
        ...process.env,
        ...env,
        PARLEY_BIN: undefined, // it is ours, and no setting of parley
        XDG_RUNTIME_DIR: join(folder, 'run'),
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#ended = new Promise((resolve) =>
      this.#process.once('close', (code, signal) => {
        this.#output += `(ended with ${code ?? signal})`
        resolve()
      }),
    )
  }

  /** Starts one; resolves when it has printed where it is. */
  static async start(options: Options = {}): Promise<Parley> {
    const folder = options.data ?? mkdtempSync(join(tmpdir(), 'parley-e2e-'))
    mkdirSync(join(folder, 'run'), { recursive: true, mode: 0o700 })
    const node = new Parley(options, folder)
    await node.#printed()
    return node
  }

  /** The same one again, at the same port, with the same data. */
  async again(options: Options = {}): Promise<Parley> {
    const same = { ...this.#options, data: this.#folder, port: this.port, ...options }
    return onThatPort(() => Parley.start({ ...same, args: [...(same.args ?? []), '--set', 'server.portRange=1'] }))
  }

  /** The link that lets a browser in. */
  get link(): string {
    return /^\s*open\s+(\S+)/m.exec(this.#output)![1]!
  }

  get pid(): number {
    return this.#process.pid!
  }

  get port(): number {
    return Number(new URL(this.link).port)
  }

  get url(): string {
    return `http://${new URL(this.link).host}`
  }

  /** The node's libp2p addresses, from a line as "for peers  127.0.0.1: tcp/35413, udp/57234/quic-v1". */
  get addresses(): string[] {
    const [, host, ports] = /^\s*for peers\s+([\d.]+): (.+)$/m.exec(this.#output) ?? []
    const [, peer] = /^\s*peer\s+(\S+)/m.exec(this.#output) ?? []
    if (!host || !ports || !peer) throw new Error(`no addresses in:\n${this.#output}`)
    return ports.split(', ').map((port) => `/ip4/${host}/${port}/p2p/${peer}`)
  }

  /** The node's own id. */
  get peer(): string {
    return /^\s*peer\s+(\S+)/m.exec(this.#output)![1]!
  }

  get data(): string {
    return join(this.#folder, 'data')
  }

  /** What lets a program in. */
  get token(): string {
    return readFileSync(join(this.data, 'token'), 'utf8').trim()
  }

  /** Ends it in order, or as a crash. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM', { keep = false } = {}): Promise<void> {
    this.#process.kill(signal)
    await this.#ended
    if (!keep) rmSync(this.#folder, { recursive: true, force: true })
  }

  get output(): string {
    return this.#output
  }

  #writeSite(files: Record<string, string>): string {
    const site = join(this.#folder, 'site')
    const all = Object.entries(files).map(([path, text]) => [join('html', path), text] as const)
    if (this.#options.config) all.push(['config/parley.toml', this.#options.config])
    for (const [path, text] of all) {
      mkdirSync(dirname(join(site, path)), { recursive: true })
      writeFileSync(join(site, path), text)
    }
    return site
  }

  #printed(): Promise<void> {
    return new Promise((resolve, reject) => {
      const read = (chunk: Buffer) => {
        this.#output += chunk
        if (/^\s*open\s+\S+/m.test(this.#output) && /Ctrl-C/.test(this.#output)) resolve()
      }
      this.#process.stdout!.on('data', read)
      this.#process.stderr!.on('data', read)
      void this.#ended.then(() => reject(new Error(`parley ended:\n${this.#output}`)))
    })
  }
}
