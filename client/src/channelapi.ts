// What a page sees of spaces and channels: types only.

import type { CallOptions, Path, PeerId } from './api.js'
import type { Code } from './errors.js'

/** A named space, in which agents open channels to each other. */
export interface Space {
  /** What it is called by all its members. */
  readonly name: string
  /**
   * Makes this page a member. Resolves when others can open channels to it.
   * Rejects with `already-started` where the page is in it already.
   */
  join(options?: CallOptions): Promise<SpaceRoom>
}

/** Options of {@link SpaceRoom.open}. */
export interface OpenOptions extends CallOptions {
  /** Only through this relay, a node. */
  via?: PeerId | undefined
  /** Through no relay. */
  directOnly?: boolean | undefined
}

/**
 * The page's part in a space. It outlives lost connections to the node: the
 * space is joined and the protocols are listened to again by itself. Channels end
 * then, with `lost`, if the connection was away for too long.
 */
export interface SpaceRoom {
  /** The name of the {@link Space}. */
  readonly space: string
  /**
   * Opens a channel to another member, wherever it is. Resolves when it has
   * accepted and proved who it is. Rejects with `bad-to-id` (can't be found),
   * `bad-space-hash` (nobody there listens to the protocol), `bad-from-id` (it
   * doesn't want this page), `limit`, `relay-refused`, `relay-expired`, `timeout`,
   * `not-joined`, `lost`.
   */
  open(agent: PeerId, protocol: string, options?: OpenOptions): Promise<Channel>
  /**
   * Takes the channels of a protocol that others open, from now on, with a loop;
   * leaving it stops, and so does the signal. Channels that were taken stay.
   *
   * ```ts
   * for await (const ch of room.accept('files/1')) void serve(ch)
   * ```
   */
  accept(protocol: string, options?: CallOptions): Accepting
  /** Leaves the space: its channels end, and its loops. A signal ends the waiting, not the leaving. */
  leave(options?: CallOptions): Promise<void>
  /** The same as {@link SpaceRoom.leave}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>
}

/** The channels of a protocol that others open. */
export interface Accepting extends AsyncIterableIterator<Channel> {
  /** Resolves when the node listens; rejects when it can't, and the loop does too. */
  readonly ready: Promise<void>
  /** Ends the loop and the listening, for `await using`; channels that were taken stay. */
  [Symbol.asyncDispose](): Promise<void>
}

/** What a channel is. */
export interface ChannelInfo {
  /** The agent at the other end. */
  readonly remote: PeerId
  /** True when it has proved its key. */
  readonly verified: boolean
  /** How it is reached: `local`, `direct`, `punch`, `relay` or `star`. */
  readonly path: Path
  /** The relay that carries the channel, which can't read it. */
  readonly relay?: PeerId | undefined
  /** Milliseconds there and back, 0 when not known. */
  readonly rtt: number
}

/** Why a channel ended. */
export interface ChannelEnd {
  /** `lost`, `relay-expired`, `limit`, …; `unknown` for a reason of the other side's own. */
  readonly code: Code
  /** A sentence for people; may be empty. */
  readonly text: string
}

/**
 * A channel to another agent: bytes both ways, in order, with flow control that
 * reaches from the reader there to the writer here. Read it with `messages` or with
 * `readable`, not both at once. What the other side sends is kept until it is read,
 * 256 KiB at most; then the other side waits.
 */
export interface Channel {
  /** As of when the channel was opened, or of the last {@link Channel.refresh}. */
  readonly info: ChannelInfo
  /** What the channel was opened for. */
  readonly protocol: string
  /**
   * Sends one message of up to 64 KiB (`limits.content`); `too-large` beyond. Resolves
   * when flow control took it: it is on its way then, and waiting for it keeps the
   * page from piling up what the other side can't take yet. Sends arrive in the
   * order of the calls. One that its signal gives up in time is not sent.
   */
  send(data: BufferSource, options?: CallOptions): Promise<void>
  /**
   * What the other side sends, message by message. The loop ends when the other
   * side closes, and throws when the channel breaks. Leaving it early leaves the
   * channel open; a later loop goes on.
   */
  readonly messages: AsyncIterable<Uint8Array<ArrayBuffer>>
  /** The same as a stream of bytes, for `pipeTo`; cancelling it ends the channel. */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>
  /** Sends bytes, in pieces as they fit; closing it closes the channel, aborting it ends it with an error. */
  readonly writable: WritableStream<BufferSource>
  /** Resolves, never rejects, when the channel is over: null after a close, by either side. What came before may still be read. */
  readonly closed: Promise<ChannelEnd | null>
  /** Asks how the other side is reached now, and changes `info`. */
  refresh(options?: CallOptions): Promise<ChannelInfo>
  /**
   * Closes both directions: what was sent is delivered first, what was not read is
   * dropped. With a reason the channel ends at once, and the other side gets it.
   * Resolves when the node is through with the channel. It never fails, but that
   * a signal ends the waiting; the closing goes on.
   */
  close(reason?: { code?: Code | undefined; text?: string | undefined }, options?: CallOptions): Promise<void>
  /** The same as {@link Channel.close} without a reason, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>
}
