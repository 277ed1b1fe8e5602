// A peer of js-libp2p that speaks the message framing of the reference, by hand
// from docs/spec/gateway.md section 5.2: on the bare protocol id, 4 bytes of
// length, big-endian, then JSON; acknowledged by id.
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { tcp } from '@libp2p/tcp'
import { createLibp2p } from 'libp2p'

type Libp2p = Awaited<ReturnType<typeof makeHost>>
type Stream = Awaited<ReturnType<Libp2p['dialProtocol']>>

function makeHost() {
  return createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    services: { identify: identify() },
  })
}

interface Frame {
  type: 'data' | 'ack'
  id: string
  data?: string
}

export interface Got {
  from: string
  data: unknown
}

export class ReferencePeer {
  readonly host: Libp2p
  /** What came, by protocol. */
  readonly got: Got[] = []
  /** The ids that were acknowledged. */
  readonly acked: string[] = []
  #next = 0

  private constructor(host: Libp2p) {
    this.host = host
  }

  static async start(): Promise<ReferencePeer> {
    return new ReferencePeer(await makeHost())
  }

  get id(): string {
    return this.host.peerId.toString()
  }

  get addresses(): string[] {
    return this.host.getMultiaddrs().map(String)
  }

  async listen(protocol: string): Promise<void> {
    await this.host.handle(protocol, (stream, connection) => void this.#read(stream, connection.remotePeer.toString()))
  }

  /** Opens a stream to a peer that a connection leads to. */
  async open(peer: string, protocol: string): Promise<Stream> {
    const connection = this.host.getConnections().find((c) => c.remotePeer.toString() === peer)
    if (!connection) throw new Error('not connected')
    const stream = await connection.newStream(protocol)
    void this.#read(stream, peer)
    return stream
  }

  /** Writes a message; its id turns up in `acked`. */
  send(stream: Stream, data: unknown): string {
    const id = `probe-${this.#next++}`
    stream.send(frame({ type: 'data', id, data: Buffer.from(JSON.stringify(data)).toString('base64') }))
    return id
  }

  async stop(): Promise<void> {
    await this.host.stop()
  }

  async #read(stream: Stream, from: string): Promise<void> {
    let rest = Buffer.alloc(0)
    for await (const chunk of stream) {
      rest = Buffer.concat([rest, chunk.subarray()])
      while (rest.length >= 4 && rest.length >= 4 + rest.readUInt32BE()) {
        const end = 4 + rest.readUInt32BE()
        this.#take(stream, from, JSON.parse(rest.subarray(4, end).toString()) as Frame)
        rest = rest.subarray(end)
      }
    }
  }

  #take(stream: Stream, from: string, { type, id, data }: Frame): void {
    if (type === 'ack') return void this.acked.push(id)
    this.got.push({ from, data: JSON.parse(Buffer.from(data!, 'base64').toString()) })
    stream.send(frame({ type: 'ack', id }))
  }
}

function frame(value: Frame): Uint8Array {
  const json = Buffer.from(JSON.stringify(value))
  const head = Buffer.alloc(4)
  head.writeUInt32BE(json.length)
  return Buffer.concat([head, json])
}
