import { ParleyError } from './errors.js'

/** What a call that its signal ended rejects with. */
export function givenUp(signal: AbortSignal): ParleyError {
  const cause: unknown = signal.reason
  const timedOut = cause instanceof Error && cause.name === 'TimeoutError'
  return new ParleyError(timedOut ? 'timeout' : 'cancelled', timedOut ? 'no answer in time' : 'the call was given up', { cause })
}

/** Calls back when a signal aborts, until the returned function is called. */
export function onAbort(signal: AbortSignal | undefined, callback: () => void): () => void {
  signal?.addEventListener('abort', callback)
  return () => signal?.removeEventListener('abort', callback)
}

/** The promise, or the rejection by a signal, whichever is first. */
export function orGivenUp<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise
  return new Promise((resolve, reject) => {
    const abort = () => (done(), reject(givenUp(signal)))
    const done = onAbort(signal, abort)
    if (signal.aborted) abort()
    promise.then(resolve, reject).finally(done)
  })
}
