// Acceptance A-13: TLS, and a reverse proxy in front.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createPlain, request, type IncomingMessage, type Server } from 'node:http'
import { createServer } from 'node:https'
import { connect, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { onThatPort } from '../e2e/parley.js'
import { exchange, NpmPeer, recordedId, stacks, type Stack } from './npm.js'
import { Raw, ways } from './raw.js'
import { file, open, Star, type Options } from './server.js'

const text = Buffer.from('through TLS and proxies')

/** Two original clients meet at an address. */
async function meet(stack: Stack, at: { address(id: string): string }): Promise<void> {
  const peers = [await NpmPeer.at(at, stack, await recordedId(stack, 'A')), await NpmPeer.at(at, stack, await recordedId(stack, 'B'))]
  expect(await exchange(stack, await peers[0]!.dial(peers[1]!.address), [text])).toEqual(text)
  for (const p of peers) p.close()
}

/** Raw clients on every transport meet at a URL. */
async function meetOnAll(stack: Stack, url: string): Promise<void> {
  const clients = await Promise.all(Object.values(ways).map((way) => Raw.connect({ url }, stack, way)))
  for (const [i, client] of clients.entries()) expect((await client.call('ss-join', `/ip4/1.1.1.${i}`, ''))[0]).toBe(null)
  for (const [i, client] of clients.entries()) {
    const streams = await client.dial(`/ip4/1.1.1.${i}`, `/ip4/1.1.1.${(i + 1) % clients.length}`, `d${i}`)
    expect(await exchange(stack, streams, [text])).toEqual(text)
  }
  for (const client of clients) client.close()
}

describe.each<[string, Options['TLS']]>([
  ['a key and a certificate', { Key: 'key.pem', Cert: 'cert.pem' }],
  ['a PFX with a passphrase', { PFX: 'star.pfx', Passphrase: 'secret' }],
  ['a PFX without one', { PFX: 'open.pfx' }],
])('A-13 %s', (_, material) => {
  const tls = Object.fromEntries(Object.entries(material!).map(([k, v]) => [k, k === 'Passphrase' ? v : file(v)]))
  let star: Star, free: Star
  beforeAll(async () => {
    star = await Star.start({ TLS: tls })
    free = await Star.start({ ...open, TLS: tls })
  })
  afterAll(() => Promise.all([star.stop(), free.stop()]))

  it.each(stacks)('wss for clients of the %s stack', (stack) => meet(stack, star))
  it.each(stacks)('every transport over TLS, %s stack', (stack) => meetOnAll(stack, free.url))
})

/** A reverse proxy as they are: TLS ends here, and the star hears of the client by headers. */
class Proxy {
  readonly #server: Server
  readonly #target: number
  /** What it says of whose request it is; the socket's address unless set. */
  client = ''

  private constructor(target: number) {
    this.#target = target
    this.#server = createServer({ key: readFileSync(file('key.pem')), cert: readFileSync(file('cert.pem')) })
    this.#server.on('request', (req, res) => {
      const on = request({ port: target, host: '127.0.0.1', method: req.method, path: req.url, headers: this.#headers(req) }, (answer) => {
        res.writeHead(answer.statusCode!, answer.headers)
        answer.pipe(res)
      })
      on.on('error', () => res.writeHead(502).end())
      res.on('close', () => on.destroy())
      req.pipe(on)
    })
    this.#server.on('upgrade', (req, socket, head) => {
      const on = connect(this.#target, '127.0.0.1', () => {
        const headers = Object.entries(this.#headers(req)).flatMap(([k, v]) => [v].flat().map((one) => `${k}: ${one}\r\n`))
        on.write(`GET ${req.url} HTTP/1.1\r\n${headers.join('')}\r\n`)
        on.write(head)
        on.pipe(socket).pipe(on)
      })
      for (const [one, other] of [[on, socket], [socket, on]]) one!.on('error', () => other!.destroy()).on('close', () => other!.destroy())
    })
  }

  static async start(star: Star): Promise<Proxy> {
    const proxy = new Proxy(star.port)
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  get url(): string {
    return `https://127.0.0.1:${this.port}`
  }

  address(id: string): string {
    return `/ip4/127.0.0.1/tcp/${this.port}/wss/p2p-websocket-star/ipfs/${id}`
  }

  stop(): void {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  #headers(req: IncomingMessage): Record<string, string | string[] | undefined> {
    return { ...req.headers, 'x-forwarded-for': this.client || req.socket.remoteAddress!, 'x-forwarded-proto': 'https' }
  }
}

describe('A-13 behind a reverse proxy', () => {
  const trusting = { TrustedProxies: ['127.0.0.1/32'] }
  const stars: Star[] = []
  const proxies: Proxy[] = []
  async function start(options: Options): Promise<Proxy> {
    stars.push(await Star.start(options))
    proxies.push(await Proxy.start(stars.at(-1)!))
    return proxies.at(-1)!
  }
  afterAll(async () => {
    for (const p of proxies) p.stop()
    await Promise.all(stars.map((s) => s.stop('SIGKILL')))
  })

  it.each(stacks)('wss for clients of the %s stack', async (stack) => meet(stack, await start(trusting)))
  it.each(stacks)('every transport, %s stack', async (stack) => meetOnAll(stack, (await start({ ...open, ...trusting })).url))

  it('the address to use is the one it is asked under', async () => {
    const proxy = await start(trusting)
    expect(await (await fetch(proxy.url)).text()).toContain(`/ip4/127.0.0.1/tcp/${proxy.port}/wss/p2p-websocket-star`)
  })

  it('metrics are not for those outside', async () => {
    const proxy = await start(trusting)
    expect((await fetch(`${proxy.url}/metrics`)).status).not.toBe(200)
  })

  it('clients count by the address that the proxy tells, where it is trusted', async () => {
    const one = { ...open, Limits: { SessionsPerIP: 1 } }
    for (const [options, both] of [[{ ...one, ...trusting }, true], [one, false]] as const) {
      const proxy = await start(options)
      proxy.client = '192.0.2.1'
      const first = await Raw.connect(proxy, 'recent')
      proxy.client = '192.0.2.2'
      const second = await Raw.connect(proxy, 'recent').catch(() => null)
      expect(second !== null).toBe(both)
      first.close()
      second?.close()
    }
  })
})

// The most common one, as its own documentation says to set it up; make long installs it.
const nginxIsHere = !spawnSync('nginx', ['-v']).error
describe.runIf(nginxIsHere || process.env.PARLEY_LONG)('A-13 behind nginx', () => {
  let star: Star, free: Star, nginx: ChildProcess, folder: string
  const port = { star: 0, free: 0 }
  beforeAll(async () => {
    star = await Star.start({ TrustedProxies: ['127.0.0.1/32'] })
    free = await Star.start(open)
    folder = mkdtempSync(join(tmpdir(), 'parley-nginx-'))
    const site = (listen: number, to: number) => `server {
      listen 127.0.0.1:${listen} ssl; ssl_certificate ${file('cert.pem')}; ssl_certificate_key ${file('key.pem')};
      location / { proxy_pass http://127.0.0.1:${to}; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade; proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; } }`
    const conf = () => `daemon off; pid ${folder}/pid; error_log stderr; events {}
      http { access_log off; map $http_upgrade $connection_upgrade { default upgrade; '' close; }
        ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((n) => `${n}_temp_path ${folder}/${n};`).join(' ')}
        ${site(port.star, star.port)} ${site(port.free, free.port)} }`
    if (!nginxIsHere) throw new Error('nginx is missing: make long installs it')
    await onThatPort(async () => { // what was free may be taken by now
      port.star = await freePort()
      port.free = await freePort()
      writeFileSync(join(folder, 'nginx.conf'), conf())
      nginx = spawn('nginx', ['-c', join(folder, 'nginx.conf'), '-p', folder, '-e', 'stderr'], { stdio: ['ignore', 'inherit', 'inherit'] })
      while (!(await fetch(`https://127.0.0.1:${port.free}`).then((r) => r.ok, () => false))) {
        if (nginx.exitCode !== null) throw new Error('nginx does not serve')
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    })
  })
  afterAll(async () => {
    const ended = new Promise((resolve) => nginx.once('close', resolve))
    nginx.kill()
    await Promise.all([star.stop(), free.stop(), nginx.exitCode ?? ended])
    rmSync(folder, { recursive: true })
  })

  it.each(stacks)('wss for clients of the %s stack', (stack) =>
    meet(stack, { address: (id) => `/ip4/127.0.0.1/tcp/${port.star}/wss/p2p-websocket-star/ipfs/${id}` }))
  it.each(stacks)('every transport, %s stack', (stack) => meetOnAll(stack, `https://127.0.0.1:${port.free}`))
})

function freePort(): Promise<number> {
  const server = createPlain()
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => {
    const { port } = server.address() as AddressInfo
    server.close(() => resolve(port))
  }))
}
