/**
 * A client of protocol v1 that does what docs/spec/gateway.md sections 2 and 3 say
 * the existing client does, its weaknesses included: a page that runs with this
 * one runs with that one. The numbers are the rows of section 3.
 */

type Listener = (peer: string, data: unknown) => unknown
type Change = (peer: string, joined: boolean) => unknown
type File = { type: 'file' | 'directory'; cid: string; mimeType?: string }
type Message = { requestid: number; method: string; params?: any; result?: unknown; error?: { code: number; message: string }; isresponse: boolean }
type Pending<T> = { promise: Promise<T>; resolve: (value: T) => void; reject: (error: Error) => void }

/** Of the page's own host: there is no other address, header or subprotocol. */
export async function connect({ peerKey, onClose }: { peerKey?: string | undefined; onClose?: () => void } = {}): Promise<Client> {
  const client = new Client(onClose)
  await client.open()
  await client.begin(peerKey)
  return client
}

function pending<T>(): Pending<T> {
  let [resolve, reject]: [(value: T) => void, (error: Error) => void] = [() => {}, () => {}]
  const promise = new Promise<T>((yes, no) => ([resolve, reject] = [yes, no]))
  return { promise, resolve, reject }
}

export class Client {
  peerID = ''
  peerKey = ''
  version = ''
  connected = false
  readonly #onClose: (() => void) | undefined
  #socket!: WebSocket
  #nextID = 0
  #nextAck = 0
  readonly #requests = new Map<number, Pending<unknown>>()
  readonly #acks = new Map<number, () => void>()
  readonly #protocols = new Map<string, Listener>()
  readonly #topics = new Map<string, { data: Listener; change?: Change | undefined }>()
  readonly #lists = new Map<string, Pending<Record<string, File>>>()
  readonly #files = new Map<string, Pending<unknown>>()
  readonly #pushes: Message[] = []
  #busy = false

  constructor(onClose?: () => void) {
    this.#onClose = onClose
  }

  open(): Promise<void> {
    this.#socket = new WebSocket(`${window.location.protocol === 'https:' ? 'wss' : 'ws'}://${window.location.host}/ws`)
    this.#socket.onmessage = (event) => this.#receive(JSON.parse(event.data))
    this.#socket.onclose = () => this.#closed()
    return new Promise((resolve, reject) => {
      this.#socket.onopen = () => ((this.connected = true), resolve())
      this.#socket.onerror = () => reject(new Error('cannot connect'))
    })
  }

  /** Row 11. */
  async begin(peerKey: string | undefined): Promise<void> {
    const made = (await this.#request('peer', peerKey ? { peerkey: peerKey } : {})) as { peerid: string; peerkey: string; version: string }
    this.peerID = made.peerid
    this.peerKey = made.peerkey
    this.version = made.version
  }

  close(): void {
    this.#socket.close()
  }

  /** Row 10: the listener is there once the answer is. */
  async start(protocol: string, listener: Listener): Promise<void> {
    await this.#request('start', { protocol })
    this.#protocols.set(protocol, listener)
  }

  async stop(protocol: string): Promise<void> {
    await this.#request('stop', { protocol })
    this.#protocols.delete(protocol)
  }

  /** Rows 3 and 4. What is not started is not asked for. */
  async send(peer: string, protocol: string, data: unknown): Promise<void> {
    if (!this.#protocols.has(protocol)) throw new Error(`not started: ${protocol}`)
    const ack = this.#nextAck++
    const acked = new Promise<void>((resolve) => this.#acks.set(ack, resolve))
    await this.#request('send', { peer, protocol, data, ack })
    await acked
  }

  /** Row 10: the listener is there before the request. */
  async subscribe(topic: string, data: Listener, change?: Change): Promise<void> {
    this.#topics.set(topic, { data, change })
    await this.#request('subscribe', { topic })
  }

  async unsubscribe(topic: string): Promise<void> {
    await this.#request('unsubscribe', { topic })
    this.#topics.delete(topic)
  }

  publish(topic: string, data: unknown): Promise<unknown> {
    return this.#request('publish', { topic, data })
  }

  async listPeers(topic: string): Promise<string[]> {
    return ((await this.#request('listpeers', { topic })) as { peers: string[] }).peers
  }

  addPeers(peerIds: string[]): Promise<unknown> {
    return this.#request('addpeers', { peerIds })
  }

  removePeers(peerIds: string[]): Promise<unknown> {
    return this.#request('removepeers', { peerIds })
  }

  /** Rows 6 and 7: an equal call under way is the same call, also after an error. */
  listFiles(peerid: string): Promise<Record<string, File>> {
    return this.#once(this.#lists, peerid, 'listfiles', { peerid })
  }

  getFile(cid: string, fallbackPeerID?: string): Promise<unknown> {
    return this.#once(this.#files, cid, 'getfile', { cid, ...(fallbackPeerID && { fallbackPeerID }) })
  }

  storeFile(path: string, content: Uint8Array): Promise<unknown> {
    return this.#request('storefile', { path, content: btoa(String.fromCharCode(...content)), directory: false })
  }

  /** Row 12. */
  createDirectory(path: string): Promise<unknown> {
    return this.#request('storefile', { path, directory: true })
  }

  removeFile(path: string): Promise<unknown> {
    return this.#request('removefile', { path })
  }

  async #once<T>(under: Map<string, Pending<T>>, key: string, method: string, params: object): Promise<T> {
    let call = under.get(key)
    if (!call) {
      under.set(key, (call = pending<T>()))
      call.promise.catch(() => {}) // whoever waits is told
      await this.#request(method, params)
    }
    return call.promise
  }

  #request(method: string, params: object): Promise<unknown> {
    const requestid = this.#nextID++
    const call = pending<unknown>()
    this.#requests.set(requestid, call)
    this.#socket.send(JSON.stringify({ requestid, method, params, isresponse: false }))
    return call.promise
  }

  /** Rows 1 and 2: answers at once, pushes one after another. */
  #receive(message: Message): void {
    if (!message.isresponse) {
      this.#pushes.push(message)
      void this.#work()
      return
    }
    const call = this.#requests.get(message.requestid)
    this.#requests.delete(message.requestid)
    if (message.error) call?.reject(new Error(message.error.message))
    else call?.resolve(message.result)
  }

  /** Row 5: a callback that waits for what only a push can bring waits for ever. */
  async #work(): Promise<void> {
    if (this.#busy) return
    this.#busy = true
    for (let push = this.#pushes.shift(); push; push = this.#pushes.shift()) {
      try {
        await this.#push(push.method, push.params)
      } catch (error) {
        console.error(error)
      }
    }
    this.#busy = false
  }

  #push(method: string, params: any): unknown {
    switch (method) {
      case 'peerData':
        return this.#protocols.get(params.protocol)?.(params.peer, params.data)
      case 'topicData':
        return this.#topics.get(params.topic)?.data(params.peerid, params.data)
      case 'peerChange':
        return this.#topics.get(params.topic)?.change?.(params.peerid, params.joined)
      case 'ack':
        this.#acks.get(params.ack)?.()
        return this.#acks.delete(params.ack)
      case 'peerFiles':
        this.#lists.get(params.peerid)?.resolve(params.entries)
        return this.#lists.delete(params.peerid)
      case 'gotFile': {
        const call = this.#files.get(params.cid)
        this.#files.delete(params.cid)
        if (params.success) return call?.resolve(params.content)
        return call?.reject(new Error(params.content.error))
      }
      default:
        throw new Error(`a push that nobody knows: ${method}`)
    }
  }

  /** Rows 8 and 9: what waits for an answer goes on waiting. */
  #closed(): void {
    this.connected = false
    this.#protocols.clear()
    this.#topics.clear()
    this.#onClose?.()
  }
}
