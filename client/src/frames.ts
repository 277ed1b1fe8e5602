// The frames of PROTOCOL.md. A frame is a CBOR array whose first element is its
// kind; what is behind it stands beside the kind.

/** The WebSocket subprotocol. */
export const subprotocol = 'parley.v2'

/** Begins a second one, which carries what the person allowed a page of another site. */
export const grantPrefix = 'parley.grant.'

// Control frames: not numbered, not repeated after a resume.
export const HELLO = 0 // {v, identity | key, session?, received?}
export const WELCOME = 1 // {v, session, resumed, received, peer, grace, node, limits}
export const RECEIVED = 2 // n: the first n numbered frames have arrived
export const PING = 3 // n
export const PONG = 4 // n
export const BYE = 5 // code, text, retryMs?

// Numbered frames: each side counts its own from 1 in a session.
export const REQUEST = 16 // id, method, params
export const RESULT = 17 // id, result
export const ERROR = 18 // id, code, text, retryMs?
export const CANCEL = 19 // id
export const SEND = 20 // id, peer, protocol, data, level, flags
export const CONTENT = 21 // channel, bytes
export const CREDIT = 22 // channel, bytes
export const END = 23 // channel, code, text, flags?
export const MESSAGE = 24 // delivery, peer, protocol, data, flags
export const HANDLED = 25 // delivery
export const REPLY = 26 // delivery, data
export const REFUSE = 27 // delivery, code, text
export const PUBLICATION = 28 // topic, peer, data
export const PRESENCE = 29 // topic, peer, joined, state
export const LOST = 30 // topic, count
export const EVENT = 31 // name, data
export const INCOMING = 32 // channel, space, protocol, window, info

/** Kinds from here on are numbered. */
export const firstNumbered = 16

/** Flag of SEND and MESSAGE: the sender waits for a reply. */
export const wantsReply = 1

/** Flag of END: contents are still to come, and the last end behind them. */
export const more = 1

/** The levels, by their number on the wire. */
export const levels = ['queued', 'delivered', 'handled', 'stored'] as const

/** A numbered frame is acknowledged after so many of them, so many bytes, or so many milliseconds. */
export const ackFrames = 32
export const ackBytes = 64 << 10
export const ackDelay = 50
