// Asks the person whether a page of another site may use their node, and keeps
// the answer's token: PROTOCOL.md, "Pages of other sites".

import type { Ask } from './api.js'
import { givenUp } from './abort.js'
import { ParleyError } from './errors.js'
import { pageOrigin } from './socket.js'

/** What is kept of an answer: the token, and what was asked for. */
interface Kept {
  token: string
  asked: string
}

/** True where the page was not served by the node at url. */
export function isElsewhere(url: URL): boolean {
  const origin = pageOrigin()
  return origin !== undefined && origin !== httpOf(url).origin
}

/** The token that lets this page in, if the person said yes before; with `ask`, to all of that. */
export function grantFor(url: URL, ask?: Ask): string | undefined {
  try {
    const kept = JSON.parse(localStorage.getItem(place(url)) ?? 'null') as Kept | null
    return kept && (!ask || kept.asked === query(ask).toString()) ? kept.token : undefined
  } catch {
    return undefined // a worker, or a page that may keep nothing
  }
}

export function forgetGrant(url: URL): void {
  try {
    localStorage.removeItem(place(url))
  } catch {
    // nothing was kept
  }
}

/**
 * Opens the node's question in a window of its own. Resolves when the person said
 * yes; rejects with `forbidden` when they said no, closed it, or the browser
 * didn't open it.
 */
export async function askPerson(url: URL, ask: Ask, signal?: AbortSignal): Promise<void> {
  const open = (globalThis as { open?: typeof window.open }).open
  if (!open) throw new ParleyError('forbidden', 'the person must be asked first, and a worker has no window for it: connect in its page')
  const params = query(ask)
  params.set('origin', pageOrigin() ?? '')
  const http = httpOf(url)
  const shown = open(`${http.origin}/_parley/consent?${params}`, '_blank', 'popup,width=560,height=640')
  if (!shown) {
    throw new ParleyError('forbidden', 'the person must be asked first, and the browser opens no window for it: call connect() from a click')
  }
  const token = await answer(shown, http.origin, signal)
  try {
    localStorage.setItem(place(url), JSON.stringify({ token, asked: query(ask).toString() } satisfies Kept))
  } catch (cause) {
    throw new ParleyError('forbidden', 'the answer can not be kept: the browser allows this page no storage', { cause })
  }
}

/** Waits for what the node's window tells. */
function answer(shown: Window, origin: string, signal?: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const end = (how: () => void) => {
      clearInterval(timer)
      removeEventListener('message', told)
      signal?.removeEventListener('abort', gaveUp)
      how()
    }
    const gaveUp = () => {
      shown.close()
      end(() => reject(givenUp(signal!)))
    }
    const told = ({ origin: from, data }: MessageEvent) => {
      if (from !== origin || data?.parley !== 'consent') return
      if (data.allowed) end(() => resolve(String(data.token)))
      else end(() => reject(new ParleyError('forbidden', 'the person did not allow it')))
    }
    // A window tells nobody that it was closed; its last word may still be on the way then.
    let closed = 0
    const timer = setInterval(() => {
      if (shown.closed && ++closed > 2) end(() => reject(new ParleyError('forbidden', 'the person closed the question')))
    }, 300)
    addEventListener('message', told)
    signal?.addEventListener('abort', gaveUp)
    if (signal?.aborted) gaveUp()
  })
}

function query({ protocols = [], topics = [], storage = 0 }: Ask): URLSearchParams {
  const params = new URLSearchParams()
  for (const name of protocols) params.append('protocol', name)
  for (const name of topics) params.append('topic', name)
  if (storage) params.set('storage', `${storage}`)
  return params
}

function httpOf(url: URL): URL {
  return new URL(url.href.replace(/^ws/, 'http'))
}

function place(url: URL): string {
  return `parley grant ${url.host}`
}
