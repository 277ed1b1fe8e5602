/**
 * Every code that an error of parley can have, on every edge. A code never
 * changes its name; the list is that of the Go package `identity`. What each means
 * is in docs/limits.md.
 */
export const codes = [
  'malformed', // the request can't be read; trying again won't help
  'unknown-method', // no such request in this version of the node
  'no-peer', // the session has no peer yet
  'peer-in-use', // the key's peer lives in another session that doesn't share it
  'not-found', // the named thing doesn't exist
  'unreachable', // no path led to the peer in time; later it may
  'not-started', // the peer is there, but nobody there listens to the protocol
  'already-started', // this page listens to the protocol already
  'reserved', // the protocol or topic id belongs to parley
  'too-large', // over a size limit; the message names it
  'queue-full', // too much is waiting; try again after `retryAfter`
  'limit', // another limit; the message names it
  'timeout', // sent, and no answer in time: it may or may not have arrived
  'closed', // the peer, the session or the node closed first
  'refused', // the other side said no, or its handler failed
  'unauthorized', // no valid token: open the link that the node printed
  'forbidden', // known, but not allowed
  'cancelled', // the caller gave up (AbortSignal)
  'unsupported', // this node or the other side doesn't have it
  'session-lost', // the connection was away for too long: what was under way is unknown
  'network-blocked', // the browser doesn't let the page reach the node
  'internal', // a fault of parley itself
  // channels, besides `limit`, `too-large`, `timeout`, `closed` and `already-started`
  'unknown', // the other end failed, or closed with an error of its own
  'bad-channel-id', // the two ends disagree about which channels there are
  'bad-space-hash', // nobody there joined the space, or listens to the protocol
  'bad-to-id', // the agent can't be found, and no relay leads to it
  'bad-from-id', // the other end doesn't take channels from this agent
  'relay-refused', // the relay does not serve this
  'relay-expired', // the relay's contract ended
  'not-joined', // the agent is not in the space on this node
  'lost', // the connection under the channel broke, or the page's session with its node
] as const

/** The kind of a {@link ParleyError}. */
export type Code = (typeof codes)[number]

/**
 * What every call of parley rejects with. `code` says what kind of failure it
 * is, `message` says it in a sentence for people.
 */
export class ParleyError extends Error {
  /** What kind of failure this is. */
  readonly code: Code
  /** In how many milliseconds trying again makes sense, where that is known. */
  readonly retryAfter: number | undefined

  /** For code that answers as parley does; without a message the code is the message. */
  constructor(code: Code, message?: string, options: { retryAfter?: number | undefined; cause?: unknown } = {}) {
    super(message || code, 'cause' in options ? { cause: options.cause } : undefined)
    this.name = 'ParleyError'
    this.code = code
    this.retryAfter = options.retryAfter
  }
}
