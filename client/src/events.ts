import type { CallOptions, Events } from './api.js'

/** Makes a class of EventTargets that know their events. */
export class Emitter<M extends object> extends EventTarget implements Events<M> {
  readonly #count = new Map<string, number>()

  on<K extends keyof M & string>(type: K, callback: (detail: M[K]) => unknown, options: CallOptions = {}): () => void {
    const listener = (event: Event) => {
      try {
        const result = callback((event as CustomEvent<M[K]>).detail)
        if (result instanceof Promise) result.catch((error: unknown) => this.failed(error, type))
      } catch (error) {
        this.failed(error, type)
      }
    }
    this.addEventListener(type, listener, options.signal ? { signal: options.signal } : {})
    return () => this.removeEventListener(type, listener)
  }

  override addEventListener(type: string, listener: any, options?: AddEventListenerOptions | boolean): void {
    super.addEventListener(type, listener, options)
    this.#count.set(type, (this.#count.get(type) ?? 0) + 1)
    this.listening(type)
  }

  override removeEventListener(type: string, listener: any, options?: EventListenerOptions | boolean): void {
    super.removeEventListener(type, listener, options)
  }

  /** Tells whether anybody ever listened to an event. */
  protected heard(type: keyof M & string): boolean {
    return this.#count.has(type)
  }

  /** Tells whether anybody ever listened to anything. */
  protected get listenedTo(): boolean {
    return this.#count.size > 0
  }

  /** Called when somebody begins to listen. */
  protected listening(_type: string): void {}

  /** Called with what a callback threw. */
  protected failed(error: unknown, _type: string): void {
    report(error)
  }

  protected emit<K extends keyof M & string>(type: K, detail: M[K]): void {
    if (this.heard(type)) this.dispatchEvent(new CustomEvent(type, { detail }))
  }
}

/** Shows an error that nobody took, as the platform shows uncaught ones. */
export function report(error: unknown): void {
  if (typeof reportError === 'function') reportError(error)
  else console.error(error)
}
