// Makes an open WebSocket, or says as well as can be known why there is none.
// Browsers tell a page nothing about a failed upgrade, so it asks around.

import type { ConnectOptions, Socket, SocketConstructor } from './api.js'
import { grantFor, isElsewhere } from './consent.js'
import { ParleyError, type Code } from './errors.js'
import { grantPrefix, subprotocol } from './frames.js'

/** How long a socket may take to open. A browser may be asking the person meanwhile. */
const openTimeout = 30_000

type DialOptions = Pick<ConnectOptions, 'url' | 'token' | 'WebSocket'>

/** The node's URL: as told, else the one that served the page. */
export function nodeUrl(given: string | URL | undefined): URL {
  if (given !== undefined) {
    const url = new URL(given, pageOrigin())
    url.protocol = url.protocol.replace(/^http/, 'ws')
    if (url.pathname === '/') url.pathname = '/ws'
    return url
  }
  const origin = pageOrigin()
  if (!origin) throw new ParleyError('malformed', "outside of a page connect() needs the node's url")
  return new URL(origin.replace(/^http/, 'ws') + '/ws')
}

/** The origin of the page or worker, also of one made from a blob. */
export function pageOrigin(): string | undefined {
  const { location, origin } = globalThis as { location?: Location; origin?: string }
  return [location?.origin, origin].find((o) => o?.startsWith('http'))
}

/** Opens a socket to the node. Rejects with a ParleyError. */
export async function dial(url: URL, options: DialOptions, signal: AbortSignal): Promise<Socket> {
  const token = typeof options.token === 'function' ? await options.token() : options.token
  signal.throwIfAborted()
  const grant = isElsewhere(url) ? grantFor(url) : undefined
  const offer = grant ? [subprotocol, grantPrefix + grant] : [subprotocol]
  const socket = await makeSocket(url, options.WebSocket, token, offer)
  socket.binaryType = 'arraybuffer'
  const failure = await opened(socket, signal)
  if (failure === undefined) return socket
  signal.throwIfAborted()
  throw await explain(url, failure)
}

async function makeSocket(url: URL, given: SocketConstructor | undefined, token: string | undefined, offer: string[]): Promise<Socket> {
  const headers = token ? { Authorization: `Bearer ${token}` } : undefined
  const inNode = !!(globalThis as { process?: { versions?: { node?: string } } }).process?.versions?.node
  const Global = (globalThis as unknown as { WebSocket?: SocketConstructor }).WebSocket
  try {
    if (given) return new given(url.href, offer, headers && { headers })
    if (Global && inNode) {
      // Node.js 22 and later take headers beside the protocols.
      return new Global(url.href, { protocols: offer, headers } as unknown as string[])
    }
    if (Global) return new Global(url.href, offer)
    const Ws = await importWs('ws')
    return new Ws(url.href, offer, { headers, perMessageDeflate: false })
  } catch (cause) {
    if (cause instanceof ParleyError) throw cause
    // A page of https may not open ws:// except to this machine.
    const code: Code = (cause as Error).name === 'SecurityError' ? 'network-blocked' : 'malformed'
    throw new ParleyError(code, (cause as Error).message, { cause })
  }
}

/** The name is not a literal, so that bundlers for browsers don't look for it. */
async function importWs(name: string): Promise<SocketConstructor> {
  try {
    return ((await import(/* @vite-ignore */ /* webpackIgnore: true */ name)) as { default: SocketConstructor }).default
  } catch (cause) {
    throw new ParleyError(
      'unsupported',
      'this Node.js has no WebSocket: use Node.js 22, install the package ws, or pass connect({ WebSocket })',
      { cause },
    )
  }
}

/** Waits until the socket is open; resolves with what went wrong if it isn't. */
function opened(socket: Socket, signal: AbortSignal): Promise<string | undefined> {
  return new Promise((resolve) => {
    let text = ''
    const done = (failure?: string) => {
      clearTimeout(timer)
      signal.removeEventListener('abort', gaveUp)
      socket.onopen = socket.onerror = socket.onclose = null
      if (failure !== undefined) {
        socket.onerror = () => {} // the package ws throws what nobody hears
        socket.close()
      }
      resolve(failure)
    }
    const gaveUp = () => done('given up')
    const timer = setTimeout(() => done('no answer in time'), openTimeout)
    signal.addEventListener('abort', gaveUp)
    socket.onopen = () => done()
    socket.onerror = (event: { message?: string }) => (text = event.message ?? '')
    socket.onclose = () => done(text)
    if (signal.aborted) gaveUp()
  })
}

async function explain(url: URL, text: string): Promise<ParleyError> {
  const advice = await blocked(url)
  if (advice) return new ParleyError('network-blocked', `the browser does not let this page reach ${url.host}: ${advice}`)
  const status = Number(/\b(?:response|status)\b\D*(\d{3})\b/i.exec(text)?.[1]) || (await askStatus(url))
  switch (status) {
    case 401:
    case 429: // too many wrong tokens
      return new ParleyError('unauthorized', 'the node does not know this page: open the link that it printed when it started', {
        retryAfter: 15_000, // it counts wrong tokens, and ten in a minute are too many
      })
    case 403:
    case 421:
      return new ParleyError('forbidden', 'the node does not let this page in')
    case 503:
      return new ParleyError('limit', 'the node is overloaded', { retryAfter: 5000 })
  }
  return new ParleyError('unreachable', `no node answers at ${url.host}` + (text && `: ${text}`))
}

/** The status that the node answers an ordinary request with, where a page may ask: 0 when not known. */
async function askStatus(url: URL): Promise<number> {
  const http = url.href.replace(/^ws/, 'http')
  if (!pageOrigin() || new URL(http).origin !== pageOrigin()) return 0
  try {
    return (await fetch(http, { cache: 'no-store', signal: AbortSignal.timeout(3000) })).status
  } catch {
    return 0
  }
}

/** Says what to do where the browser keeps this page from the local network (Chrome 142 and later). */
async function blocked(url: URL): Promise<string | undefined> {
  const { navigator, location } = globalThis as { navigator?: Navigator; location?: Location }
  if (!location || !isLocal(url.hostname) || isLocal(location.hostname)) return undefined
  if (globalThis.isSecureContext === false) return 'only pages over https may ask for it'
  for (const name of ['local-network-access', 'loopback-network', 'local-network']) {
    try {
      const status = await navigator?.permissions.query({ name: name as PermissionName })
      if (status?.state === 'denied') return "allow it to use the local network in the site's settings"
    } catch {
      // this browser doesn't have that permission
    }
  }
  return undefined
}

/** True for the names and addresses of this machine and of private networks. */
export function isLocal(host: string): boolean {
  return (
    /^(localhost|\[::1\]|127(\.\d+){3}|10(\.\d+){3}|192\.168(\.\d+){2}|172\.(1[6-9]|2\d|3[01])(\.\d+){2}|169\.254(\.\d+){2})$/.test(host) ||
    /\.(localhost|local)$/.test(host) ||
    /^\[f[cd]/.test(host)
  )
}
