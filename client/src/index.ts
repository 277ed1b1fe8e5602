import type { ConnectOptions, ParleyNode } from './api.js'
import { askPerson, forgetGrant, grantFor, isElsewhere } from './consent.js'
import { ParleyError } from './errors.js'
import { PageNode } from './node.js'
import { nodeUrl } from './socket.js'

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
  const { ask, signal } = options
  const url = nodeUrl(options.url)
  if (!ask || !isElsewhere(url)) return new PageNode(options).begin()
  const known = grantFor(url, ask) !== undefined
  if (!known) await askPerson(url, ask, signal)
  try {
    return await new PageNode(options).begin()
  } catch (error) {
    // A browser doesn't say whether it was the node that refused: what was allowed may have been taken back.
    if (!known || !(error instanceof ParleyError) || !['unreachable', 'forbidden', 'unauthorized'].includes(error.code)) throw error
    forgetGrant(url)
    await askPerson(url, ask, signal)
    return new PageNode(options).begin()
  }
}
