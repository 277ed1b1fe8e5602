// The original programs as promises.
import { generateKeyPairSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

export type Stack = 'recent' | '2019'
export const stacks: Stack[] = ['recent', '2019']

/* eslint-disable @typescript-eslint/no-explicit-any -- the originals have no types */
export type Any = any

const here = import.meta.url

/** What a stack exports. */
export function originals(stack: Stack): Record<'Star' | 'PeerId' | 'crypto' | 'multiaddr' | 'pull' | 'io' | 'streams', Any> {
  const require = createRequire(new URL(`originals/${stack}/package.json`, here))
  return {
    Star: require('libp2p-websocket-star'),
    PeerId: require('peer-id'),
    crypto: require('libp2p-crypto'),
    multiaddr: require('multiaddr'),
    pull: require('pull-stream'),
    io: require('socket.io-client'),
    streams: require('socket.io-pull-stream'),
  }
}

/** A call with a Node callback as a promise. */
export function called<T = Any>(call: (done: (error: unknown, value?: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) =>
    call((error, value) => (error ? reject(error instanceof Error ? error : new Error(String(error))) : resolve(value as T))),
  )
}

/** The keys of the recordings, whose ids are known. */
const recorded = JSON.parse(readFileSync(new URL('../../star/testdata/star.json', here), 'utf8')).identities as {
  name: string
  type: string
  json: unknown
}[]

export function recordedId(stack: Stack, name: string): Promise<Any> {
  return called((done) => originals(stack).PeerId.createFromJSON(recorded.find((i) => i.name === name)!.json, done))
}

/** A new RSA identity, made faster than the original makes it. */
export async function newId(stack: Stack): Promise<Any> {
  const der = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ type: 'pkcs1', format: 'der' })
  const { PeerId, crypto } = originals(stack)
  const key = await called((done) => crypto.keys.supportedKeys.rsa.unmarshalRsaPrivateKey(der, done))
  return called((done) => PeerId.createFromPrivKey(key.bytes, done))
}

/** A peer of the original transport, listening on one address. */
export class NpmPeer {
  readonly stack: Stack
  readonly transport: Any
  readonly listener: Any
  /** Addresses that discovery told, each as often as it did. */
  readonly found: { address: string; at: number }[] = []
  /** Connections that came, while there is no handler. */
  readonly errors: unknown[] = []
  address = ''

  constructor(stack: Stack, { id, allowOpen = false }: { id?: Any; allowOpen?: boolean } = {}, handler: (connection: Any) => void = echo(stack)) {
    this.stack = stack
    this.transport = new (originals(stack).Star)({ id, allowJoinWithDisabledChallenge: allowOpen })
    this.transport.discovery.on('peer', (info: Any) =>
      this.found.push({ address: info.multiaddrs.toArray()[0].toString(), at: performance.now() }),
    )
    this.listener = this.transport.createListener(handler)
    this.listener.on('error', (error: unknown) => this.errors.push(error))
  }

  /** One that listens at a server with a recorded or new identity. */
  static async at(star: { address(id: string): string }, stack: Stack, who: Any, handler?: (connection: Any) => void): Promise<NpmPeer> {
    const peer = new NpmPeer(stack, { id: who }, handler)
    await peer.listen(star.address(who.toB58String()))
    return peer
  }

  listen(address: string): Promise<void> {
    this.address = address
    return called((done) => this.listener.listen(originals(this.stack).multiaddr(address), done))
  }

  dial(address: string): Promise<Any> {
    return called((done) => this.transport.dial(originals(this.stack).multiaddr(address), done))
  }

  get socket(): Any {
    return this.listener.io
  }

  /** Cuts the TCP connection, for good. */
  vanish(): void {
    this.socket.io.reconnection(false)
    this.socket.io.engine.transport.ws.terminate()
  }

  /** Cuts the TCP connection; the client comes back by itself. */
  drop(): void {
    this.socket.io.engine.transport.ws.terminate()
  }

  close(): void {
    if (!this.listener.io) return
    this.listener.io.io.reconnection(false)
    this.listener._down()
  }

  /** How often an address was told. */
  heard(address: string): number {
    return this.found.filter((f) => f.address === address).length
  }
}

/** A handler that sends back what comes. */
export function echo(stack: Stack): (connection: Any) => void {
  const { pull } = originals(stack)
  return (connection) => pull(connection, connection)
}

/** Sends buffers, ends, and gives all that comes back. */
export function exchange(stack: Stack, connection: Any, buffers: Buffer[]): Promise<Buffer> {
  const { pull } = originals(stack)
  return called<Buffer[]>((done) => pull(pull.values(buffers), connection, pull.collect(done))).then((got) => Buffer.concat(got))
}

/** Everything a source gives, until its end; an error end rejects. */
export function readAll(stack: Stack, source: Any): Promise<Buffer> {
  const { pull } = originals(stack)
  return called<Buffer[]>((done) => pull(source, pull.collect(done))).then((got) => Buffer.concat(got))
}

/** A source that is pushed to. */
export function pushable(): { source: Any; push(data: Buffer): void; end(error?: unknown): void } {
  const waiting: Buffer[] = []
  let ended: unknown
  let asked: Any
  const serve = () => {
    if (!asked || (waiting.length === 0 && !ended)) return
    const answer = asked
    asked = undefined
    if (waiting.length > 0) answer(null, waiting.shift())
    else answer(ended)
  }
  return {
    source: (abort: unknown, answer: Any) => {
      if (abort) return answer(abort)
      asked = answer
      serve()
    },
    push(data) {
      waiting.push(data)
      serve()
    },
    end(error: unknown = true) {
      ended = error
      serve()
    },
  }
}

/** Waits until a condition holds. */
export async function until(what: string, holds: () => boolean | Promise<boolean>, patience = 60_000): Promise<void> {
  const deadline = Date.now() + patience
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`not in ${patience} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
