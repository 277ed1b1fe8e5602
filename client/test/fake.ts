// A node that speaks v2 in memory: sessions with resume, messages between its
// pages, topics with presence. Enough to test the client against, and to work on
// the demo without a network (tests/e2e/mock.ts serves it over real sockets).

import type { Socket, SocketConstructor } from '../src/api.js'
import { decodeFrames, encode } from '../src/cbor.js'
import * as f from '../src/frames.js'
import { Log } from '../src/log.js'
import { FakeChannels } from './fakechannels.js'

/** The node's end of a socket. */
export interface Wire {
  send(bytes: Uint8Array): void
  close(code: number, reason?: string): void
  onmessage: (bytes: Uint8Array) => void
  onclose: () => void
}

/** One frame as it came: kind and what is behind it. */
export type Seen = [kind: number, ...parts: any[]]

export class FakeNode {
  limits = { frame: 32 << 20, message: 8 << 20, requests: 1024, outbox: 16 << 20, outboxTotal: 64 << 20, channels: 256, content: 64 << 10 }
  grace = 30_000
  /** Who a page is that doesn't say which identity it wants. */
  defaultIdentity = 'default'
  /** No socket opens. */
  down = false
  /** Messages of pages are kept unread until this is false again and `resume` is called. */
  paused = false
  /** Methods that fail, and how. */
  fail = new Map<string, string>()
  /** Methods that are not answered. */
  hang = new Set<string>()
  /** Everything that pages sent, newest last. */
  seen: Seen[] = []
  sockets = new Set<FakeSocket>()
  /** The token and URL of every dial. */
  dials: { url: string; protocols: string[]; options: any }[] = []
  sessions = new Map<string, Session>()
  topics = new Map<string, Map<string, unknown>>()
  waiting: { from: Session; parts: any[] }[] = []
  #unread: (() => void)[] = []
  #count = 0

  /** A WebSocket whose other end is this node. */
  get WebSocket(): SocketConstructor {
    const node = this
    return class extends FakeSocket {
      constructor(url: string, protocols: string[], options?: unknown) {
        super(node)
        node.dials.push({ url, protocols, options })
      }
    }
  }

  /** Serves a socket. */
  accept(wire: Wire): void {
    let session: Session | undefined
    wire.onmessage = (bytes) => {
      const read = () => {
        for (const { kind, parts } of decodeFrames(bytes)) {
          this.seen.push([kind, ...parts])
          if (kind === f.HELLO) session = this.#hello(wire, parts[0])
          else session?.frame(kind, parts)
        }
      }
      if (this.paused) this.#unread.push(read)
      else read()
    }
    wire.onclose = () => session?.lost(wire)
  }

  /** Reads what was kept while paused. */
  resume(): void {
    this.paused = false
    for (const read of this.#unread.splice(0)) read()
  }

  /** Loses all sockets without a word. */
  cut(code = 1006): void {
    for (const socket of [...this.sockets]) socket.drop(code)
  }

  /** Forgets all sessions, as a node that was restarted. */
  forget(): void {
    for (const session of [...this.sessions.values()]) session.end()
  }

  #hello(wire: Wire, hello: any): Session {
    let session = hello.session && this.sessions.get(String(hello.session))
    const resumed = !!session
    if (!session) {
      const { identity = this.defaultIdentity, key } = hello
      const peer = key ? `peer-of-${key}` : identity === '' ? `peer-new-${++this.#count}` : `peer-${identity}`
      session = new Session(this, peer, ++this.#count)
      this.sessions.set(String(session.token), session)
    }
    session.attach(wire, resumed, hello.received ?? 0)
    return session
  }

  /** Members of a topic, but for one peer. */
  members(topic: string, without: string): { peer: string; state: unknown }[] {
    return [...(this.topics.get(topic) ?? [])].filter(([peer]) => peer !== without).map(([peer, state]) => ({ peer, state }))
  }

  presence(topic: string, peer: string, joined: boolean, state: unknown): void {
    const members = this.topics.get(topic) ?? new Map<string, unknown>()
    if (joined) members.set(peer, state)
    else members.delete(peer)
    this.topics.set(topic, members)
    for (const s of this.sessions.values()) {
      if (s.peer !== peer && s.topics.has(topic)) s.write([f.PRESENCE, topic, peer, joined, state])
    }
  }

  publish(topic: string, peer: string, data: unknown): void {
    for (const s of this.sessions.values()) if (s.topics.has(topic)) s.write([f.PUBLICATION, topic, peer, data])
  }

  /** Delivers what can be delivered now. */
  route(): void {
    this.waiting = this.waiting.filter(({ from, parts }) => {
      const [, peer, protocol] = parts
      const to = [...this.sessions.values()].find((s) => s.peer === peer && s.protocols.has(protocol))
      to?.deliver(from, parts)
      return !to
    })
  }
}

/** A page's session at the fake node. */
export class Session {
  readonly token: Uint8Array
  protocols = new Set<string>()
  topics = new Set<string>()
  channels = new FakeChannels(this)
  deliveries = new Map<number, { from: Session; id: number; level: number; reply: boolean }>()
  received = 0
  wire: Wire | undefined
  #log = new Log()
  #next = 1
  #grace: ReturnType<typeof setTimeout> | undefined

  constructor(
    readonly node: FakeNode,
    readonly peer: string,
    n: number,
  ) {
    this.token = new Uint8Array(16).fill(n)
  }

  attach(wire: Wire, resumed: boolean, received: number): void {
    clearTimeout(this.#grace)
    this.wire?.close(1001)
    this.wire = wire
    const { limits, grace } = this.node
    const welcome = { v: 2, session: this.token, resumed, received: this.received, peer: this.peer, grace, node: 'fake', limits }
    wire.send(encode([f.WELCOME, welcome]))
    this.#log.rewind(received)
    this.#flush()
  }

  lost(wire: Wire): void {
    if (this.wire !== wire) return
    this.wire = undefined
    this.#grace = setTimeout(() => this.end(), this.node.grace)
  }

  end(): void {
    clearTimeout(this.#grace)
    this.node.sessions.delete(String(this.token))
    this.channels.gone()
    for (const { from, id } of this.deliveries.values()) from.write([f.ERROR, id, 'closed', 'the page went'])
    const shared = [...this.node.sessions.values()].some((s) => s.peer === this.peer)
    if (!shared) for (const topic of this.topics) this.node.presence(topic, this.peer, false, null)
  }

  write(frame: unknown[]): void {
    this.#log.push(encode(frame))
    this.#flush()
  }

  deliver(from: Session, [id, , protocol, data, level, flags]: any[]): void {
    const n = this.#next++
    this.deliveries.set(n, { from, id, level, reply: !!flags })
    this.write([f.MESSAGE, n, from.peer, protocol, data, flags])
    if (level === 1 && !flags) from.write([f.RESULT, id, 1])
  }

  frame(kind: number, parts: any[]): void {
    if (kind === f.RECEIVED) return this.#log.received(parts[0])
    if (kind === f.PING) return this.wire?.send(encode([f.PONG, parts[0]]))
    if (kind === f.BYE) return this.end()
    if (kind < f.firstNumbered) return
    this.received++
    if (kind === f.REQUEST) return this.#request(parts[0], parts[1], parts[2])
    if (kind === f.SEND) {
      this.node.waiting.push({ from: this, parts })
      if (parts[4] === 0) this.write([f.RESULT, parts[0], 0])
      return this.node.route()
    }
    if (kind === f.CONTENT || kind === f.CREDIT || kind === f.END) return this.channels.frame(kind, parts)
    if (kind === f.CANCEL) return this.#cancel(parts[0])
    this.#settle(kind, parts)
  }

  #settle(kind: number, [n, ...rest]: any[]): void {
    const d = this.deliveries.get(n)
    this.deliveries.delete(n)
    if (!d) return
    if (kind === f.REFUSE) d.from.write([f.ERROR, d.id, ...rest])
    else if (kind === f.REPLY) d.from.write([f.RESULT, d.id, rest[0]])
    else if (d.level === 2) d.from.write([f.RESULT, d.id, 2])
  }

  #cancel(id: number): void {
    const before = this.node.waiting.length
    this.node.waiting = this.node.waiting.filter((w) => w.from !== this || w.parts[0] !== id)
    if (this.node.waiting.length < before) this.write([f.ERROR, id, 'cancelled', 'cancelled'])
  }

  #request(id: number, method: string, params: any): void {
    const code = this.node.fail.get(method)
    if (code) return this.write([f.ERROR, id, code, `${method} fails`])
    if (this.node.hang.has(method)) return
    const done = this.channels.request(method, params)
    if (done) return this.write('code' in done ? [f.ERROR, id, done.code, `${method} fails`] : [f.RESULT, id, done.result])
    const answer = (result: unknown) => this.write([f.RESULT, id, result])
    switch (method) {
      case 'start':
        if (this.protocols.has(params.protocol)) return this.write([f.ERROR, id, 'already-started', 'already'])
        this.protocols.add(params.protocol)
        answer(null)
        return this.node.route()
      case 'stop':
        if (!this.protocols.delete(params.protocol)) return this.write([f.ERROR, id, 'not-started', 'not started'])
        return answer(null)
      case 'subscribe':
        this.topics.add(params.topic)
        answer({ members: this.node.members(params.topic, this.peer) })
        return this.node.presence(params.topic, this.peer, true, params.state ?? null)
      case 'unsubscribe':
        this.topics.delete(params.topic)
        this.node.presence(params.topic, this.peer, false, null)
        return answer(null)
      case 'publish':
        this.node.publish(params.topic, this.peer, params.data)
        return answer(null)
      case 'members':
        return answer({ members: this.node.members(params.topic, this.peer) })
      case 'path':
        return answer({ peer: params.peer, path: params.peer === this.peer ? 'self' : 'local', address: '', rtt: 0, tried: [] })
      case 'exportKey':
        return answer({ key: `key-of-${this.peer}` })
      case 'status':
        return answer({ peers: this.node.sessions.size, topics: 0, protocols: 0, uptime: 1 })
      case 'addPeers':
      case 'removePeers':
        return answer(null)
    }
    this.write([f.ERROR, id, 'unknown-method', `unknown method: ${method}`])
  }

  #flush(): void {
    if (!this.wire || !this.#log.waiting) return
    const batch: Uint8Array[] = []
    this.#log.take(batch, 1 << 20)
    this.wire.send(new Uint8Array(Buffer.concat(batch)))
    this.#flush()
  }
}

/** A WebSocket in memory: what one side sends, the other gets in a later turn of the event loop. */
export class FakeSocket implements Socket {
  binaryType = ''
  readyState = 0
  onopen: ((event: any) => void) | null = null
  onmessage: ((event: any) => void) | null = null
  onerror: ((event: any) => void) | null = null
  onclose: ((event: any) => void) | null = null
  readonly #node: FakeNode
  readonly #wire: Wire
  #due: (() => unknown)[] = []

  constructor(node: FakeNode) {
    this.#node = node
    this.#wire = {
      send: (bytes) => this.#later(() => this.readyState === 1 && this.onmessage?.({ data: bytes.slice().buffer })),
      close: (code, reason) => this.#later(() => this.drop(code, reason)),
      onmessage: () => {},
      onclose: () => {},
    }
    this.#later(() => {
      if (node.down) return this.drop(1006)
      this.readyState = 1
      node.sockets.add(this)
      node.accept(this.#wire)
      this.onopen?.({})
    })
  }

  send(data: Uint8Array): void {
    if (this.readyState === 0) throw new Error('not open yet')
    if (this.readyState === 1) this.#later(() => this.#node.sockets.has(this) && this.#wire.onmessage(data))
  }

  close(code = 1005): void {
    if (this.readyState > 1) return
    this.readyState = 2
    this.#later(() => this.drop(code))
  }

  /** The connection is gone, now. */
  drop(code: number, reason = ''): void {
    if (this.readyState === 3) return
    const open = this.readyState !== 0
    this.readyState = 3
    this.#node.sockets.delete(this)
    this.#wire.onclose()
    if (!open) this.onerror?.({})
    this.onclose?.({ code, reason })
  }

  #later(what: () => unknown): void {
    if (this.#due.push(what) > 1) return
    setImmediate(() => {
      for (const due of this.#due.splice(0)) due()
    })
  }
}
