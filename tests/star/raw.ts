// Clients of socket.io-client, without the star transport above: what a test
// wants to say in its own words.
import { called, originals, until, type Any, type Stack } from './npm.js'
import type { Star } from './server.js'

export interface Connecting {
  transports?: string[]
  forceBase64?: boolean
  query?: string
}

/** The ways to connect. */
export const ways: Record<string, Connecting> = {
  'WebSocket alone': { transports: ['websocket'] },
  'polling alone': { transports: ['polling'] },
  'polling with b64=1': { transports: ['polling'], forceBase64: true },
  'WebSocket with b64=1': { transports: ['websocket'], forceBase64: true },
  'polling, then an upgrade': { transports: ['polling', 'websocket'] },
}

export class Raw {
  readonly stack: Stack
  readonly socket: Any
  /** Events that came, without those of streams. */
  readonly events: { name: string; args: Any[]; at: number }[] = []
  /** Why the connection ended, when it has. */
  ended = ''
  /** What answers an incoming dial; streams are taken beforehand. */
  incoming: (dialId: string, answer: (...args: Any[]) => void) => void

  private constructor(stack: Stack, url: string, options: Connecting) {
    this.stack = stack
    const { io, streams } = originals(stack)
    this.socket = io(url, { forceNew: true, reconnection: false, transports: ['websocket'], ...options })
    streams(this.socket, { codec: 'buffer' })
    this.incoming = (id, answer) => {
      this.echo(id)
      answer()
    }
    for (const name of ['ws-peer', 'ss-incomming'])
      this.socket.on(name, (...args: Any[]) => {
        this.events.push({ name, args, at: performance.now() })
        if (name === 'ss-incomming') this.incoming(args[0], args.at(-1))
      })
    this.socket.on('disconnect', (reason: string) => (this.ended = reason))
  }

  static async connect(star: Star | { url: string }, stack: Stack, options: Connecting = {}): Promise<Raw> {
    const raw = new Raw(stack, star.url, options)
    await called((done) => {
      raw.socket.once('connect', () => done(null))
      raw.socket.once('connect_error', done)
    })
    if (options.transports?.length === 2) await until('the upgrade', () => raw.transport === 'websocket')
    return raw
  }

  /** One that has joined. */
  static async at(star: Star, stack: Stack, address: string, options: Connecting = {}): Promise<Raw> {
    const raw = await Raw.connect(star, stack, options)
    const [error] = await raw.call('ss-join', address, '')
    if (error) throw new Error(String(error))
    return raw
  }

  get transport(): string {
    return this.socket.io.engine.transport.name
  }

  /** Emits with an answer wanted; gives its arguments. */
  call(event: string, ...args: Any[]): Promise<Any[]> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no answer to ${event}`)), 30_000)
      this.socket.emit(event, ...args, (...answer: Any[]) => {
        clearTimeout(timer)
        resolve(answer)
      })
    })
  }

  /** Joins by proof; gives the answer to the last step. */
  async prove(address: string, id: Any): Promise<Any[]> {
    const first = await this.call('ss-join', address, publicKey(this.stack, id))
    if (first[0]) return first
    return this.call('ss-join', address, await signature(id, first[1]))
  }

  /** Serves a dial as a callee: what comes goes back. */
  echo(dialId: string): void {
    const { pull } = originals(this.stack)
    pull(this.socket.createSource(`${dialId}.dialer`), this.socket.createSink(`${dialId}.listener`))
  }

  /** Dials, and gives the streams. */
  async dial(from: string, to: string, dialId: string): Promise<{ source: Any; sink: Any }> {
    const sink = this.socket.createSink(`${dialId}.dialer`)
    const [error] = await this.call('ss-dial', from, to, dialId)
    if (error) throw new Error(String(error))
    return { sink, source: this.socket.createSource(`${dialId}.listener`) }
  }

  heard(address: string): number {
    return this.events.filter((e) => e.name === 'ws-peer' && e.args[0] === address).length
  }

  /** Cuts the TCP connection. */
  vanish(): void {
    this.socket.io.engine.transport.ws.terminate()
  }

  close(): void {
    this.socket.disconnect()
  }
}

export function publicKey(stack: Stack, id: Any): string {
  return originals(stack).crypto.keys.marshalPublicKey(id.pubKey).toString('hex')
}

export async function signature(id: Any, nonce: string): Promise<string> {
  return ((await called((done) => id.privKey.sign(Buffer.from(nonce), done))) as Buffer).toString('hex')
}
