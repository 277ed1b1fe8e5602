/**
 * The numbered frames of a session, from 1 on, kept until the node has them. It
 * is pure: it decides what is to be written, and writes nothing itself.
 *
 *     received │ sent on this socket │ waiting
 *     dropped  │ kept                │ kept
 */
export class Log {
  #frames: (Uint8Array | undefined)[] = []
  #head = 0 // index of the first frame kept
  #first = 1 // its number
  #next = 1 // the number of the next frame to write on this socket
  #sent = 0 // the highest number that was written on any socket
  #bytes = 0

  /** Bytes kept. */
  get bytes(): number {
    return this.#bytes
  }

  /** The highest number that was ever written. */
  get sent(): number {
    return this.#sent
  }

  /** True when there is something to write. */
  get waiting(): boolean {
    return this.#next < this.#end
  }

  get #end(): number {
    return this.#first + this.#frames.length - this.#head
  }

  /** Adds a frame and returns its number. */
  push(frame: Uint8Array): number {
    this.#frames.push(frame)
    this.#bytes += frame.length
    return this.#end - 1
  }

  /** Moves waiting frames into a batch, up to so many bytes, but at least one if the batch is empty. */
  take(batch: Uint8Array[], limit: number): void {
    let size = batch.reduce((n, p) => n + p.length, 0)
    while (this.waiting) {
      const frame = this.#frames[this.#head + this.#next - this.#first]!
      if (batch.length && size + frame.length > limit) break
      batch.push(frame)
      size += frame.length
      this.#next++
    }
    this.#sent = Math.max(this.#sent, this.#next - 1)
  }

  /** The node has the first n frames. */
  received(n: number): void {
    const upTo = Math.min(n, this.#sent)
    while (this.#first <= upTo) {
      this.#bytes -= this.#frames[this.#head]!.length
      this.#frames[this.#head++] = undefined
      this.#first++
    }
    if (this.#head > 1024 && this.#head * 2 > this.#frames.length) {
      this.#frames.splice(0, this.#head)
      this.#head = 0
    }
    this.#next = Math.max(this.#next, this.#first)
  }

  /** A new socket goes on where the node is: behind its first n frames. */
  rewind(n: number): void {
    this.received(n)
    this.#next = this.#first
  }
}
