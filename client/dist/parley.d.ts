/* parley 0.1.0, the page's side. MIT License. Types: parley.d.ts. Source: client/src. */

/// <reference lib="es2022" />
/// <reference lib="dom" />
/// <reference lib="esnext.disposable" />

/**
 * Every code that an error of parley can have, on every edge. A code never
 * changes its name; the list is that of the Go package `identity`. What each means
 * is in docs/limits.md.
 */
export declare const codes: readonly ['malformed', 'unknown-method', 'no-peer', 'peer-in-use', 'not-found', 'unreachable', 'not-started', 'already-started', 'reserved', 'too-large', 'queue-full', 'limit', 'timeout', 'closed', 'refused', 'unauthorized', 'forbidden', 'cancelled', 'unsupported', 'session-lost', 'network-blocked', 'internal', 'unknown', 'bad-channel-id', 'bad-space-hash', 'bad-to-id', 'bad-from-id', 'relay-refused', 'relay-expired', 'not-joined', 'lost'];
/** The kind of a {@link ParleyError}. */
export type Code = (typeof codes)[number];
/**
 * What every call of parley rejects with. `code` says what kind of failure it
 * is, `message` says it in a sentence for people.
 */
export declare class ParleyError extends Error {
    /** What kind of failure this is. */
    readonly code: Code;
    /** In how many milliseconds trying again makes sense, where that is known. */
    readonly retryAfter: number | undefined;
    /** For code that answers as parley does; without a message the code is the message. */
    constructor(code: Code, message?: string, options?: {
        retryAfter?: number | undefined;
        cause?: unknown;
    });
}

/** The name of one party on the network, for example `12D3KooW…`. */
export type PeerId = string;
/**
 * What can be sent: any JSON value, and bytes at any depth. Typed arrays and
 * `ArrayBuffer`s arrive as `Uint8Array`; members that are `undefined` are left
 * out, as `JSON.stringify` does, and `toJSON` is honoured (a `Date` arrives as text).
 */
export type Data = null | boolean | number | string | Uint8Array | Data[] | {
    [name: string]: Data;
};
/**
 * How far a message has come:
 * `queued` in the own node's outbox,
 * `delivered` the other node has put it into the other page's session,
 * `handled` the other page's handler returned,
 * `stored` the other side has it on disk.
 */
export type Level = 'queued' | 'delivered' | 'handled' | 'stored';
/** Every call takes a signal; a call that is given up rejects with `cancelled`. */
export interface CallOptions {
    /**
     * Gives the call up. A message that was not written yet is not sent; one that
     * was may still arrive. With `AbortSignal.timeout(ms)` the code is `timeout`.
     */
    signal?: AbortSignal | undefined;
}
/** Options of {@link ParleyNode.send}. */
export interface SendOptions extends CallOptions {
    /** What to wait for; `handled` unless told otherwise. */
    level?: Level | undefined;
}
/** A message that came in. */
export interface Message<T = Data> {
    /** Who sent it; proven by the sender's key. */
    readonly from: PeerId;
    /** What it was sent for; the one that was started. */
    readonly protocol: string;
    /** What was sent. */
    readonly data: T;
    /** True when the sender waits for a reply ({@link ParleyNode.request}). */
    readonly wantsReply: boolean;
}
/**
 * Takes the messages of a protocol. Messages of one sender come in order, one
 * at a time: the next one when the handler returned, or its promise settled.
 * Different senders don't wait for each other. What it returns is the reply to a
 * request; what it throws refuses the message, and the sender's call rejects
 * with `refused` and the error's message.
 */
export type Handler<T = Data> = (message: Message<T>) => unknown;
/** A message of {@link ParleyNode.listen}. It counts as handled when the loop asks for the next one. */
export interface Incoming<T = Data> extends Message<T> {
    /** Answers a request. */
    reply(data?: unknown): void;
    /** Says no: the sender's call rejects with `refused` and this text. */
    refuse(text?: string): void;
}
/** A message that was published in a topic. */
export interface Publication<T = Data> {
    /** Where it was published. */
    readonly topic: string;
    /** Who published it; proven by a signature. The own peer gets its own publications too. */
    readonly from: PeerId;
    /** What was published. */
    readonly data: T;
}
/** Somebody who is in a topic, and what it says of itself there. */
export interface Member<S = Data> {
    /** Who it is. */
    readonly peer: PeerId;
    /** What it says of itself ({@link SubscribeOptions.state}), null for nothing. */
    readonly state: S | null;
}
/** How a peer is reached, best first: `none` is not connected. */
export type Path = 'self' | 'local' | 'direct' | 'punch' | 'relay' | 'star' | 'none';
/** How a peer is reached now, and what was tried and failed. */
export interface PathInfo {
    /** Who was asked for. */
    readonly peer: PeerId;
    /** The way in use. */
    readonly path: Path;
    /** The remote address in use (a multiaddr), empty for none. */
    readonly address: string;
    /** Milliseconds there and back, 0 when not known. */
    readonly rtt: number;
    /** The last failed ways, newest last. */
    readonly tried: readonly {
        readonly path: Path;
        readonly error: string;
    }[];
}
/**
 * `online`: the node answers. `offline`: it doesn't, the client tries again by
 * itself, and calls wait. `closed`: for good.
 */
export type State = 'online' | 'offline' | 'closed';
/** A change of the connection to the node. */
export interface StateChange {
    /** What it is now. */
    readonly state: State;
    /** Why, when it is not `online`. */
    readonly error?: ParleyError | undefined;
    /** In how many milliseconds the next try is, while `offline`. */
    readonly retryIn?: number | undefined;
    /**
     * Only with `online`: false after a loss that took too long to be resumed.
     * What was under way then rejected with `session-lost`; protocols and topics
     * were taken up again.
     */
    readonly resumed?: boolean | undefined;
}
/** An `EventTarget` that knows its events, with `on` as the shorter way. */
export interface Events<M extends object> extends EventTarget {
    /**
     * Calls back with an event's detail until the returned function is called or
     * the signal aborts. What the callback throws goes to the event `error`.
     */
    on<K extends keyof M & string>(type: K, callback: (detail: M[K]) => unknown, options?: CallOptions): () => void;
    /** The browser's own; the listener gets a `CustomEvent` with the `detail`. */
    addEventListener<K extends keyof M & string>(type: K, listener: ((event: CustomEvent<M[K]>) => unknown) | {
        handleEvent(event: CustomEvent<M[K]>): unknown;
    } | null, options?: AddEventListenerOptions | boolean): void;
    /** Undoes {@link Events.addEventListener}, with the same listener and options. */
    removeEventListener<K extends keyof M & string>(type: K, listener: ((event: CustomEvent<M[K]>) => unknown) | {
        handleEvent(event: CustomEvent<M[K]>): unknown;
    } | null, options?: EventListenerOptions | boolean): void;
}
/** The events of a {@link ParleyNode}. */
export interface NodeEvents {
    /** The connection to the node came, went, or ended. */
    state: StateChange;
    /** A peer the page talks to is now reached otherwise. */
    path: PathInfo;
    /** The page was too slow for a topic: so many publications were dropped, oldest first. */
    lost: {
        readonly topic: string;
        readonly count: number;
    };
    /**
     * A callback of the page threw, or something could not be taken up again after
     * a reconnect. Where nobody listens it is reported as an uncaught error is.
     */
    error: unknown;
}
/** The events of a {@link Room}. */
export interface RoomEvents<T = Data, S = Data> {
    /** Something was published, by this page too. */
    message: Publication<T>;
    /** Somebody came. */
    join: Member<S>;
    /** Somebody left, or its node is gone. */
    leave: Member<S>;
    /** A member changed its state. */
    change: Member<S>;
    /** The page was too slow: so many publications were dropped, oldest first. */
    lost: {
        readonly topic: string;
        readonly count: number;
    };
}
/** Options of {@link ParleyNode.subscribe}. */
export interface SubscribeOptions<S = Data> extends CallOptions {
    /** What the others see of this page in the topic. */
    state?: S | null | undefined;
}
/**
 * A topic that the page is in: who else is, and what is published.
 *
 * ```ts
 * for await (const { from, data } of node.subscribe('room')) show(from, data)
 * ```
 *
 * Each loop and each callback gets every publication, from the first one on:
 * what comes before the first of them is attached is kept for it. A loop that
 * falls behind by 1,024 publications or 4 MiB loses the oldest, with an event `lost`.
 * Leaving the last loop closes the room, unless it has callbacks.
 */
export interface Room<T = Data, S = Data> extends Events<RoomEvents<T, S>>, AsyncIterable<Publication<T>> {
    /** The name it was subscribed by. */
    readonly topic: string;
    /** Resolves when the node has joined the topic and `members` is complete; rejects when it can't. */
    readonly ready: Promise<void>;
    /** Who is here, without the own peer. It stays up to date. */
    readonly members: ReadonlyMap<PeerId, Member<S>>;
    /** What the others see of this page here. Setting it tells them. */
    state: S | null;
    /** Publishes to everybody here, this page included; resolves when it is on its way. */
    publish(data: unknown, options?: CallOptions): Promise<void>;
    /** Leaves the topic, unless another room of this page is in it still. Loops end. A signal ends the waiting, not the leaving. */
    close(options?: CallOptions): Promise<void>;
    /** The same as {@link Room.close}, for `await using`. */
    [Symbol.asyncDispose](): Promise<void>;
}
/** What the node says of itself. */
export interface Status {
    /** Peers that the node is connected to. */
    readonly peers: number;
    /** Topics that this page is in. */
    readonly topics: number;
    /** Protocols that this page has started. */
    readonly protocols: number;
    /** Milliseconds. */
    readonly uptime: number;
}
/** The limits that the node gave this page; the client keeps them by itself. */
export interface Limits {
    /** Bytes of one WebSocket message. */
    readonly frame: number;
    /** Bytes of one message's data. */
    readonly message: number;
    /** Calls under way at once. */
    readonly requests: number;
    /** Bytes under way to one peer and protocol. */
    readonly outbox: number;
    /** Bytes under way altogether. */
    readonly outboxTotal: number;
    /** Channels at once, half of them opened by others. Missing where the node has no channels. */
    readonly channels?: number | undefined;
    /** Bytes of one {@link Channel.send}. */
    readonly content?: number | undefined;
}
/**
 * The page's own peer, through its node. All calls settle: while `offline` they
 * wait, and when the node is closed they reject with `closed`.
 */
export interface ParleyNode extends Events<NodeEvents> {
    /** The own id. It stays the same over reloads where the identity does. */
    readonly peer: PeerId;
    /** Whether the node answers now; the event `state` tells changes. */
    readonly state: State;
    /** The node's version. */
    readonly version: string;
    /** Those of the connection in use; a reconnect may bring others. */
    readonly limits: Limits;
    /**
     * Listens to a protocol. Resolves when the node does; from then on messages
     * reach the handler, also after every reconnect. Aborting the signal stops it.
     */
    start<T = Data>(protocol: string, handler: Handler<T>, options?: CallOptions): Promise<void>;
    /** Stops listening. What was not handled yet is refused with `not-started`. A signal ends the waiting, not the stopping. */
    stop(protocol: string, options?: CallOptions): Promise<void>;
    /**
     * Listens to a protocol with a loop, which gets the messages of all senders one
     * by one; leaving it stops.
     *
     * ```ts
     * for await (const message of node.listen('chat')) show(message.from, message.data)
     * ```
     */
    listen<T = Data>(protocol: string, options?: CallOptions): AsyncIterableIterator<Incoming<T>>;
    /**
     * Sends a message, in order with the others to the same peer and protocol.
     * Resolves with the level that was reached: the one asked for, or the highest
     * that the other side can tell.
     */
    send(peer: PeerId, protocol: string, data: unknown, options?: SendOptions): Promise<Level>;
    /** Sends a message and resolves with what the other page's handler returned. */
    request<T = Data>(peer: PeerId, protocol: string, data?: unknown, options?: CallOptions): Promise<T>;
    /** Joins a topic. Calling it again gives another room of the same topic. */
    subscribe<T = Data, S = Data>(topic: string, options?: SubscribeOptions<S>): Room<T, S>;
    /** Publishes without being in the topic. */
    publish(topic: string, data: unknown, options?: CallOptions): Promise<void>;
    /** Asks who is in a topic, without the own peer. */
    members<S = Data>(topic: string, options?: CallOptions): Promise<Member<S>[]>;
    /** A space of this name (1 to 255 bytes), whose members open channels to each other. */
    space(name: string): Space;
    /** Tells how a peer is reached, and why not. */
    path(peer: PeerId, options?: CallOptions): Promise<PathInfo>;
    /** Keeps connections to peers, at these addresses (multiaddrs) too. Resolves when that is noted. */
    addPeers(peers: Iterable<PeerId>, options?: CallOptions & {
        addresses?: Iterable<string> | undefined;
    }): Promise<void>;
    /** Ends what {@link addPeers} began; open connections stay. */
    removePeers(peers: Iterable<PeerId>, options?: CallOptions): Promise<void>;
    /** The page's private key as text, for `connect({ key })` elsewhere. It is a secret. */
    exportKey(options?: CallOptions): Promise<string>;
    /** What the node says of itself and of this page. */
    status(options?: CallOptions): Promise<Status>;
    /** Says goodbye and ends everything. It never fails, and waits for nothing. */
    close(): Promise<void>;
    /** The same as {@link ParleyNode.close}, for `await using`. */
    [Symbol.asyncDispose](): Promise<void>;
}
/** The part of a WebSocket that the client uses. */
export interface Socket {
    /** The client sets `arraybuffer`. */
    binaryType: string;
    /** 1 is open, as in the browser. */
    readonly readyState: number;
    /** Called once, when it is open. */
    onopen: ((event: any) => void) | null;
    /** Called with each message; `data` is an `ArrayBuffer`. */
    onmessage: ((event: any) => void) | null;
    /** Called when it fails; `onclose` follows. */
    onerror: ((event: any) => void) | null;
    /** Called once at the end, with `code` and `reason`. */
    onclose: ((event: any) => void) | null;
    /** Sends one binary message. */
    send(data: Uint8Array<ArrayBuffer>): void;
    /** Closes it in order. */
    close(code?: number, reason?: string): void;
}
/** How to make one: the browser's `WebSocket`, that of the package `ws`, or any other. */
export type SocketConstructor = new (url: string, protocols: string[], options?: any) => Socket;
/**
 * What a page that the node did not serve wants to use. A name that ends in `*`
 * stands for all that begin with what is before it.
 */
export interface Ask {
    /** Protocols to start, and to send by. */
    protocols?: readonly string[] | undefined;
    /** Topics to be in, and to publish in. */
    topics?: readonly string[] | undefined;
    /** Bytes of files. */
    storage?: number | undefined;
}
/** Options of {@link connect}. All have good defaults on a page that a node serves. */
export interface ConnectOptions extends CallOptions {
    /** The node, `ws://localhost:10000/ws` for example. The node that served the page unless told; needed outside of pages. */
    url?: string | URL | undefined;
    /**
     * Which of the site's keys: up to 64 of `A-Z a-z 0-9 . _ -`. The node makes
     * and keeps it. `default` unless told; `''` is a new key that nobody keeps.
     */
    identity?: string | undefined;
    /** An own key instead, from {@link ParleyNode.exportKey}. */
    key?: string | undefined;
    /**
     * The node's token, for programs; `parley token` prints it. A function is asked
     * at every connect. Browsers use the cookie of the launch link and can't send one.
     */
    token?: string | (() => string | Promise<string>) | undefined;
    /**
     * Only for pages that another site serves: the node asks the person, in a window
     * of its own, whether the page may use this, and remembers the answer. Browsers
     * open that window only from a click or a key. Everything else is `forbidden`.
     */
    ask?: Ask | undefined;
    /** Keeps trying until the node answers, instead of rejecting when the first try fails. */
    wait?: boolean | undefined;
    /** Called with every change of the connection, the first `online` included. */
    onState?: ((change: StateChange) => void) | undefined;
    /** How long to wait before trying again, in milliseconds: doubling from `min` (100) to `max` (5,000), with chance. */
    retry?: {
        min?: number | undefined;
        max?: number | undefined;
    } | undefined;
    /** Bytes that calls may keep waiting in the client, offline or behind the limits; beyond it they reject with `queue-full`. 64 MiB. */
    maxQueue?: number | undefined;
    /** A WebSocket to use instead of the global one, or of the package `ws` on Node.js 20. */
    WebSocket?: SocketConstructor | undefined;
}

/** A named space, in which agents open channels to each other. */
export interface Space {
    /** What it is called by all its members. */
    readonly name: string;
    /**
     * Makes this page a member. Resolves when others can open channels to it.
     * Rejects with `already-started` where the page is in it already.
     */
    join(options?: CallOptions): Promise<SpaceRoom>;
}
/** Options of {@link SpaceRoom.open}. */
export interface OpenOptions extends CallOptions {
    /** Only through this relay, a node. */
    via?: PeerId | undefined;
    /** Through no relay. */
    directOnly?: boolean | undefined;
}
/**
 * The page's part in a space. It outlives lost connections to the node: the
 * space is joined and the protocols are listened to again by itself. Channels end
 * then, with `lost`, if the connection was away for too long.
 */
export interface SpaceRoom {
    /** The name of the {@link Space}. */
    readonly space: string;
    /**
     * Opens a channel to another member, wherever it is. Resolves when it has
     * accepted and proved who it is. Rejects with `bad-to-id` (can't be found),
     * `bad-space-hash` (nobody there listens to the protocol), `bad-from-id` (it
     * doesn't want this page), `limit`, `relay-refused`, `relay-expired`, `timeout`,
     * `not-joined`, `lost`.
     */
    open(agent: PeerId, protocol: string, options?: OpenOptions): Promise<Channel>;
    /**
     * Takes the channels of a protocol that others open, from now on, with a loop;
     * leaving it stops, and so does the signal. Channels that were taken stay.
     *
     * ```ts
     * for await (const ch of room.accept('files/1')) void serve(ch)
     * ```
     */
    accept(protocol: string, options?: CallOptions): Accepting;
    /** Leaves the space: its channels end, and its loops. A signal ends the waiting, not the leaving. */
    leave(options?: CallOptions): Promise<void>;
    /** The same as {@link SpaceRoom.leave}, for `await using`. */
    [Symbol.asyncDispose](): Promise<void>;
}
/** The channels of a protocol that others open. */
export interface Accepting extends AsyncIterableIterator<Channel> {
    /** Resolves when the node listens; rejects when it can't, and the loop does too. */
    readonly ready: Promise<void>;
    /** Ends the loop and the listening, for `await using`; channels that were taken stay. */
    [Symbol.asyncDispose](): Promise<void>;
}
/** What a channel is. */
export interface ChannelInfo {
    /** The agent at the other end. */
    readonly remote: PeerId;
    /** True when it has proved its key. */
    readonly verified: boolean;
    /** How it is reached: `local`, `direct`, `punch`, `relay` or `star`. */
    readonly path: Path;
    /** The relay that carries the channel, which can't read it. */
    readonly relay?: PeerId | undefined;
    /** Milliseconds there and back, 0 when not known. */
    readonly rtt: number;
}
/** Why a channel ended. */
export interface ChannelEnd {
    /** `lost`, `relay-expired`, `limit`, …; `unknown` for a reason of the other side's own. */
    readonly code: Code;
    /** A sentence for people; may be empty. */
    readonly text: string;
}
/**
 * A channel to another agent: bytes both ways, in order, with flow control that
 * reaches from the reader there to the writer here. Read it with `messages` or with
 * `readable`, not both at once. What the other side sends is kept until it is read,
 * 256 KiB at most; then the other side waits.
 */
export interface Channel {
    /** As of when the channel was opened, or of the last {@link Channel.refresh}. */
    readonly info: ChannelInfo;
    /** What the channel was opened for. */
    readonly protocol: string;
    /**
     * Sends one message of up to 64 KiB (`limits.content`); `too-large` beyond. Resolves
     * when flow control took it: it is on its way then, and waiting for it keeps the
     * page from piling up what the other side can't take yet. Sends arrive in the
     * order of the calls. One that its signal gives up in time is not sent.
     */
    send(data: BufferSource, options?: CallOptions): Promise<void>;
    /**
     * What the other side sends, message by message. The loop ends when the other
     * side closes, and throws when the channel breaks. Leaving it early leaves the
     * channel open; a later loop goes on.
     */
    readonly messages: AsyncIterable<Uint8Array<ArrayBuffer>>;
    /** The same as a stream of bytes, for `pipeTo`; cancelling it ends the channel. */
    readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
    /** Sends bytes, in pieces as they fit; closing it closes the channel, aborting it ends it with an error. */
    readonly writable: WritableStream<BufferSource>;
    /** Resolves, never rejects, when the channel is over: null after a close, by either side. What came before may still be read. */
    readonly closed: Promise<ChannelEnd | null>;
    /** Asks how the other side is reached now, and changes `info`. */
    refresh(options?: CallOptions): Promise<ChannelInfo>;
    /**
     * Closes both directions: what was sent is delivered first, what was not read is
     * dropped. With a reason the channel ends at once, and the other side gets it.
     * Resolves when the node is through with the channel. It never fails, but that
     * a signal ends the waiting; the closing goes on.
     */
    close(reason?: {
        code?: Code | undefined;
        text?: string | undefined;
    }, options?: CallOptions): Promise<void>;
    /** The same as {@link Channel.close} without a reason, for `await using`. */
    [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Connects the page to its node and gives it a peer of its own.
 *
 * ```js
 * import { connect } from '/parley.js'
 * const node = await connect()
 * await node.start('chat', ({ from, data }) => show(from, data))
 * await node.send(bob, 'chat', { text: 'hi' })
 * ```
 *
 * Rejects when the node can't be reached: `unauthorized`, `forbidden`,
 * `network-blocked` (the browser keeps the page from this machine), `unreachable`.
 * Afterwards a lost connection is taken up again by itself.
 */
export declare function connect(options?: ConnectOptions): Promise<ParleyNode>;
