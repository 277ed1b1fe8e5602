// js-libp2p 3 is written for Node.js 22; this is all that it misses on 20.
Promise.withResolvers ??= function withResolvers<T>(this: PromiseConstructor) {
  let resolve!: (value: T | PromiseLike<T>) => void
  let reject!: (reason?: unknown) => void
  const promise = new this<T>((a, b) => {
    resolve = a
    reject = b
  })
  return { promise, resolve, reject }
}
