/** A site whose pages talk over channels. What each test does with them is in the test. */
export const channelSite = {
  'index.html': '<!doctype html><title>channels</title><script type="module" src="page.js"></script>',
  'page.js': `
    import { connect, ParleyError } from '/parley.js'

    const piece = 1 << 16
    /** So many bytes that follow from the seed, with the seed's name in the clear in each piece. */
    function bytesAt(seed, at, size) {
      const bytes = new Uint8Array(size)
      const words = new Uint32Array(bytes.buffer, 0, size >> 2)
      let x = (seed * 2654435761 ^ at) >>> 0 || 1
      for (let i = 0; i < words.length; i++) {
        x ^= x << 13; x ^= x >>> 17; x ^= x << 5
        words[i] = x
      }
      bytes.set(new TextEncoder().encode(marker(seed)).subarray(0, size))
      return bytes
    }
    const marker = (seed) => ('in the clear, seed ' + seed + '. ').repeat(8)

    /** What the seed gives, as a stream; made counts the bytes that were taken of it. */
    const made = { bytes: 0 }
    function source(seed, size) {
      let at = 0
      return new ReadableStream({
        pull(controller) {
          const n = Math.min(piece, size - at)
          if (n > 0) controller.enqueue(bytesAt(seed, at, n))
          at += n
          made.bytes += n
          if (at >= size) controller.close()
        },
      }, { highWaterMark: 0 })
    }

    const hex = async (bytes) => [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))].map((b) => b.toString(16).padStart(2, '0')).join('')

    /** The hash of what the seed gives. */
    const hashOf = async (seed, size) => hex(await new Response(source(seed, size)).arrayBuffer())

    /** Reads so many bytes of a channel and leaves it open. */
    async function take(ch, size) {
      const all = new Uint8Array(size)
      const reader = ch.readable.getReader()
      let at = 0
      while (at < size) {
        const { value, done } = await reader.read()
        if (done) throw new Error('the channel ended after ' + at + ' bytes')
        all.set(value, at)
        at += value.length
      }
      reader.releaseLock()
      return hex(all)
    }

    /** Joins the space as so and so. */
    async function join(identity) {
      globalThis.node = await connect({ identity })
      globalThis.room = await node.space('e2e').join()
      return node.peer
    }

    /** The next channels of a protocol; accepted.next() gives them. */
    async function accept(protocol) {
      globalThis.accepted = room.accept(protocol)
      await accepted.ready
    }

    const codeOf = (promise) => promise.then(() => 'done', (e) => (e instanceof ParleyError ? e.code : String(e)))

    Object.assign(globalThis, { join, accept, source, take, hashOf, codeOf, made, marker, piece, channels: [] })
    globalThis.ready = true
  `,
}
