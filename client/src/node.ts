// Puts the parts together: the session carries, calls go out, the inbox and the
// topics take what comes in.

import type * as api from './api.js'
import { givenUp, onAbort, orGivenUp } from './abort.js'
import { encode, type Frame } from './cbor.js'
import { Calls, wireError } from './calls.js'
import { asyncDispose } from './dispose.js'
import { ParleyError } from './errors.js'
import { Emitter, report } from './events.js'
import * as f from './frames.js'
import { Inbox, Listening } from './inbox.js'
import { watchPage } from './page.js'
import { Topic, TopicRoom, type TopicOwner } from './rooms.js'
import { Session, type SessionOwner, type Welcome } from './session.js'
import { dial, nodeUrl } from './socket.js'
import { Spaces, type SpacesOwner } from './spaces.js'
import { Upkeep } from './upkeep.js'

export class PageNode extends Emitter<api.NodeEvents> implements api.ParleyNode, SessionOwner, TopicOwner {
  readonly #options: api.ConnectOptions
  readonly #session: Session
  readonly #calls: Calls
  readonly #inbox: Inbox
  readonly #protocols = new Map<string, Upkeep<true>>()
  readonly #topics = new Map<string, Topic>()
  readonly #spaces: Spaces
  readonly #unwatch: () => void
  #welcome: Welcome | undefined
  #state: api.State = 'offline'
  #key: string | undefined
  #first: { resolve: () => void; reject: (error: unknown) => void } | undefined

  constructor(options: api.ConnectOptions) {
    super()
    this.#options = options
    this.#key = options.key
    if (options.onState) this.on('state', options.onState)
    const url = nodeUrl(options.url)
    this.#session = new Session(this, {
      dial: (signal) => dial(url, options, signal),
      hello: () => (this.#key === undefined ? { identity: options.identity } : { key: this.#key }),
      retry: { min: options.retry?.min ?? 100, max: options.retry?.max ?? 5000 },
    })
    this.#calls = new Calls(this.#session, options.maxQueue ?? 64 << 20)
    this.#inbox = new Inbox(this.#session, (error) => this.report(error))
    this.#spaces = new Spaces(this.#spacesOwner(options.maxQueue ?? 64 << 20))
    this.#unwatch = watchPage(this.#session, () => this.#close('the page was left'))
  }

  /** Connects; resolves when the node answers. */
  async begin(): Promise<this> {
    const { signal } = this.#options
    const cancelled = () => this.#session.close(givenUp(signal!))
    let heedless: (() => void) | undefined
    await new Promise<void>((resolve, reject) => {
      this.#first = { resolve, reject }
      if (signal?.aborted) return cancelled()
      heedless = onAbort(signal, cancelled)
      void this.#session.run()
    }).finally(() => heedless?.())
    return this
  }

  get peer(): string {
    return this.#welcome?.peer ?? ''
  }

  get state(): api.State {
    return this.#state
  }

  get version(): string {
    return this.#welcome?.node ?? ''
  }

  get limits(): api.Limits {
    return this.#welcome!.limits
  }

  // ── messages ──

  async start<T>(protocol: string, handler: api.Handler<T>, { signal }: api.CallOptions = {}): Promise<void> {
    await this.#start(protocol, handler as api.Handler, signal, () => {})
  }

  /** `ended` is called when the page listens no more, with an error that ended it if there is one. */
  async #start(protocol: string, handler: api.Handler, signal: AbortSignal | undefined, ended: (error?: unknown) => void): Promise<void> {
    if (signal?.aborted) throw givenUp(signal)
    if (this.#inbox.has(protocol)) throw new ParleyError('already-started', `already started protocol: ${protocol}`)
    const heedless = onAbort(signal, () => void this.stop(protocol).catch(() => {}))
    this.#inbox.listen(protocol, handler, (error) => (heedless(), ended(error)))
    const upkeep = this.#protocol(protocol)
    const started = upkeep.want(true).catch((error: unknown) => {
      this.#inbox.unlisten(protocol, error)
      if (!upkeep.wish) this.#protocols.delete(protocol)
      throw error
    })
    await orGivenUp(started, signal)
  }

  async stop(protocol: string, { signal }: api.CallOptions = {}): Promise<void> {
    if (!this.#inbox.has(protocol)) throw new ParleyError('not-started', `protocol not started: ${protocol}`)
    this.#inbox.unlisten(protocol)
    const upkeep = this.#protocol(protocol)
    const stopped = upkeep.want(undefined).then(() => {
      if (!upkeep.wish) this.#protocols.delete(protocol)
    })
    await orGivenUp(stopped, signal)
  }

  listen<T>(protocol: string, { signal }: api.CallOptions = {}): AsyncIterableIterator<api.Incoming<T>> {
    const loop = new Listening(async () => {
      if (this.#inbox.has(protocol, loop.handle)) await this.stop(protocol).catch(() => {})
    })
    this.#start(protocol, loop.handle, signal, (error) => loop.end(error)).catch((error: unknown) => {
      loop.end(signal?.aborted ? undefined : error)
    })
    return loop as AsyncIterableIterator<api.Incoming<never>>
  }

  async send(peer: string, protocol: string, data: unknown, options: api.SendOptions = {}): Promise<api.Level> {
    const level = f.levels.indexOf(options.level ?? 'handled')
    if (level < 0) throw new ParleyError('malformed', `there is no level ${String(options.level)}`)
    const reached = await this.#send(peer, protocol, data, level, 0, options)
    return f.levels[reached as number] ?? 'queued'
  }

  async request<T>(peer: string, protocol: string, data?: unknown, options: api.CallOptions = {}): Promise<T> {
    return (await this.#send(peer, protocol, data, 2, f.wantsReply, options)) as T
  }

  #send(peer: string, protocol: string, data: unknown, level: number, flags: number, { signal }: api.CallOptions) {
    const frame = (id: number) => encode([f.SEND, id, peer, protocol, data, level, flags])
    const around = peer.length + protocol.length + 24 // what the frame has besides the data
    return this.#calls.call({ lane: `${peer}\n${protocol}`, frame, around, signal })
  }

  // ── topics ──

  subscribe<T, S>(topic: string, { state, signal }: api.SubscribeOptions<S> = {}): api.Room<T, S> {
    let shared = this.#topics.get(topic)
    if (!shared) this.#topics.set(topic, (shared = new Topic(topic, this)))
    return new TopicRoom(shared, state, signal) as unknown as api.Room<T, S>
  }

  async publish(topic: string, data: unknown, options: api.CallOptions = {}): Promise<void> {
    const frame = (id: number) => encode([f.REQUEST, id, 'publish', { topic, data }])
    await this.#calls.call({ lane: `\n${topic}`, frame, around: topic.length + 40, signal: options.signal })
  }

  async members<S>(topic: string, options: api.CallOptions = {}): Promise<api.Member<S>[]> {
    return ((await this.#ask('members', { topic }, options)) as { members: api.Member<S>[] }).members
  }

  // ── spaces ──

  space(name: string): api.Space {
    return this.#spaces.space(name)
  }

  #spacesOwner(maxQueue: number): SpacesOwner {
    const node = this
    return {
      get maxContent() {
        return node.#welcome?.limits.content ?? 64 << 10
      },
      maxQueue,
      write: (frame) => this.#session.write(frame),
      call: (method, params, signal) => this.#calls.call({ lane: '', frame: (id) => encode([f.REQUEST, id, method, params]), signal }),
      report: (error) => this.report(error),
    }
  }

  // ── the network ──

  async path(peer: string, options: api.CallOptions = {}): Promise<api.PathInfo> {
    return (await this.#ask('path', { peer }, options)) as api.PathInfo
  }

  async addPeers(peers: Iterable<string>, options: api.CallOptions & { addresses?: Iterable<string> | undefined } = {}): Promise<void> {
    const addresses = options.addresses && [...options.addresses]
    await this.#ask('addPeers', { peers: [...peers], addresses }, options)
  }

  async removePeers(peers: Iterable<string>, options: api.CallOptions = {}): Promise<void> {
    await this.#ask('removePeers', { peers: [...peers] }, options)
  }

  async exportKey(options: api.CallOptions = {}): Promise<string> {
    return ((await this.#ask('exportKey', {}, options)) as { key: string }).key
  }

  async status(options: api.CallOptions = {}): Promise<api.Status> {
    return (await this.#ask('status', {}, options)) as api.Status
  }

  async close(): Promise<void> {
    this.#close('the node was closed')
  }

  async [asyncDispose](): Promise<void> {
    await this.close()
  }

  // ── what the session tells ──

  onFrame({ kind, parts, size }: Frame): void {
    switch (kind) {
      case f.RESULT:
        return this.#calls.answered(parts[0], undefined, parts[1])
      case f.ERROR:
        return this.#calls.answered(parts[0], wireError(parts[1], parts[2], parts[3]))
      case f.MESSAGE:
        return this.#inbox.message(parts)
      case f.PUBLICATION:
        return this.#topics.get(parts[0] as string)?.publication(parts[1] as string, parts[2] as never, size)
      case f.PRESENCE:
        return this.#topics.get(parts[0] as string)?.presence(parts[1] as string, !!parts[2], parts[3] as never)
      case f.LOST: {
        const [topic, count] = parts as [string, number]
        this.#topics.get(topic)?.lost(count)
        return this.lost(topic, count)
      }
      case f.CONTENT:
        return this.#spaces.content(parts[0] as number, parts[1] as Uint8Array<ArrayBuffer>)
      case f.CREDIT:
        return this.#spaces.credit(parts[0] as number, parts[1] as number)
      case f.END: {
        const [channel, code, text, flags] = parts as [number, string, string, number | undefined]
        return this.#spaces.end(channel, code && wireError(code, text).code, text, flags)
      }
      case f.INCOMING:
        return this.#spaces.incoming(...(parts as Parameters<Spaces['incoming']>))
      case f.EVENT:
        if (parts[0] === 'path') this.emit('path', parts[1] as api.PathInfo)
    }
  }

  onOnline(welcome: Welcome, resumed: boolean, sent: number): void {
    const first = !this.#welcome
    this.#welcome = welcome
    if (!resumed && !first) {
      this.#inbox.lost()
      this.#calls.lost(sent)
    }
    if (!resumed) {
      for (const upkeep of this.#protocols.values()) upkeep.renew()
      for (const topic of this.#topics.values()) topic.renew()
      if (!first) this.#spaces.renew()
    }
    this.#calls.online(welcome.limits)
    if (first && this.#options.identity === '' && this.#key === undefined) void this.#keepKey()
    this.#change({ state: 'online', resumed: resumed || first })
    this.#first?.resolve()
    this.#first = undefined
  }

  onOffline(error: ParleyError, retryIn: number): void {
    if (this.#first && !this.#options.wait) return this.#session.close(error)
    this.#change({ state: 'offline', error, retryIn })
  }

  onClosed(error: ParleyError): void {
    this.#unwatch()
    this.#first?.reject(error)
    this.#first = undefined
    const own = error.code === 'closed' || error.code === 'cancelled' ? undefined : error
    this.#inbox.close(own)
    for (const topic of this.#topics.values()) topic.close(own)
    this.#spaces.close(error, own)
    this.#calls.close(error)
    this.#change({ state: 'closed', error })
  }

  // ── what the topics ask ──

  call(method: string, params: object): Promise<unknown> {
    return this.#calls.call({ lane: '', frame: (id) => encode([f.REQUEST, id, method, params]) })
  }

  lost(topic: string, count: number): void {
    this.emit('lost', { topic, count })
  }

  ended(topic: Topic): void {
    this.#topics.delete(topic.name)
  }

  /** Tells of an error that no caller waits for. */
  report(error: unknown): void {
    if (this.#state === 'closed') return
    if (this.heard('error')) this.emit('error', error)
    else report(error)
  }

  // ──

  protected override failed(error: unknown, type: string): void {
    if (type === 'error') report(error)
    else this.report(error)
  }

  /** A question whose answer doesn't depend on the session, so a new one is asked again. */
  #ask(method: string, params: object, { signal }: api.CallOptions): Promise<unknown> {
    return this.#calls.call({ lane: '', frame: (id) => encode([f.REQUEST, id, method, params]), repeat: true, signal })
  }

  #protocol(protocol: string): Upkeep<true> {
    let upkeep = this.#protocols.get(protocol)
    if (upkeep) return upkeep
    const apply = async (wish: true | undefined) => void (await this.call(wish ? 'start' : 'stop', { protocol }))
    upkeep = new Upkeep<true>(apply, (error) => {
      this.#inbox.unlisten(protocol, error)
      this.#protocols.delete(protocol)
      this.report(error)
    })
    this.#protocols.set(protocol, upkeep)
    return upkeep
  }

  /** A key that nobody keeps must outlive a lost session here, or the page would be somebody else. */
  async #keepKey(): Promise<void> {
    try {
      this.#key = await this.exportKey()
    } catch {
      // the session ended first
    }
  }

  #change(change: api.StateChange): void {
    this.#state = change.state
    this.emit('state', change)
  }

  #close(text: string): void {
    this.#session.close(new ParleyError('closed', text))
  }
}
