import { ParleyError } from './errors.js'

/**
 * Keeps one thing at the node as the page wants it, over sessions: one request
 * at a time, the newest wish wins, and a new session is told again.
 */
export class Upkeep<T> {
  readonly #apply: (wish: T | undefined, had: T | undefined) => Promise<void>
  readonly #failed: (error: unknown) => void
  #wish: T | undefined // undefined: the node shouldn't have it
  #has: T | undefined // what the node has
  #running = false
  #waiters: { resolve: () => void; reject: (error: unknown) => void }[] = []

  /**
   * `apply` makes a wish true at the node; `failed` hears of a failure that no
   * caller waits for.
   */
  constructor(apply: (wish: T | undefined, had: T | undefined) => Promise<void>, failed: (error: unknown) => void) {
    this.#apply = apply
    this.#failed = failed
  }

  get wish(): T | undefined {
    return this.#wish
  }

  /** Changes the wish; resolves when the node has it, or a later one. */
  want(wish: T | undefined): Promise<void> {
    this.#wish = wish
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject })
      void this.#run()
    })
  }

  /** The node has forgotten it. */
  renew(): void {
    this.#has = undefined
    void this.#run()
  }

  async #run(): Promise<void> {
    if (this.#running) return
    this.#running = true
    while (this.#wish !== this.#has) {
      const wish = this.#wish
      try {
        await this.#apply(wish, this.#has)
        this.#has = wish
      } catch (error) {
        if (error instanceof ParleyError && error.code === 'session-lost') this.#has = undefined
        // a new session has nothing of what it should end: that is what was wished
        else if (this.#wish === wish && this.#has !== wish) this.#fail(error)
      }
    }
    this.#running = false
    for (const { resolve } of this.#waiters.splice(0)) resolve()
  }

  /** The node won't: the wish is given up. */
  #fail(error: unknown): void {
    this.#wish = this.#has
    const waiters = this.#waiters.splice(0)
    for (const { reject } of waiters) reject(error)
    if (!waiters.length) this.#failed(error)
  }
}
