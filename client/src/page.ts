import type { Session } from './session.js'

/**
 * Tells a session what the browser knows: a page that is shown again, or a
 * network that is back, is a reason to look at once; a page that is left for good
 * says goodbye, so that its node need not wait for it. Returns the undoing.
 */
export function watchPage(session: Session, left: () => void): () => void {
  const page = globalThis as unknown as EventTarget & { document?: Document }
  if (typeof page.addEventListener !== 'function') return () => {}
  const look = () => session.probe()
  const shown = () => page.document?.visibilityState === 'visible' && look()
  const hidden = (event: Event) => {
    if (!(event as PageTransitionEvent).persisted) left()
  }
  page.addEventListener('online', look)
  page.addEventListener('pageshow', look)
  page.addEventListener('pagehide', hidden)
  page.document?.addEventListener('visibilitychange', shown)
  return () => {
    page.removeEventListener('online', look)
    page.removeEventListener('pageshow', look)
    page.removeEventListener('pagehide', hidden)
    page.document?.removeEventListener('visibilitychange', shown)
  }
}
