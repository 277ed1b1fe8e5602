import type { ConnectOptions, ParleyNode } from './api.js'
import { PageNode } from './node.js'

export type * from './api.js'
export { ParleyError, codes, type Code } from './errors.js'

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
export async function connect(options: ConnectOptions = {}): Promise<ParleyNode> {
  return new PageNode(options).begin()
}
