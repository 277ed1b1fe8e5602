// Acceptance: what the test suites of the original programs check, with
// parley's server; written afresh, since the packages come without them, and by
// name of the case. The suite of socket.io-pull-stream comes with it and runs as
// it is.
import { spawn, type ChildProcess } from 'node:child_process'
import { createRequire } from 'node:module'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { called, echo, exchange, newId, NpmPeer, originals, pushable, readAll, recordedId, stacks, until, type Any } from './npm.js'
import { onThatPort } from '../e2e/parley.js'
import { Raw } from './raw.js'
import { file, open, seconds, Star } from './server.js'

describe.each(stacks)('A-2 the suite of the transport, %s stack', (stack) => {
  const { Star: Transport, multiaddr, pull } = originals(stack)
  let first: Star, second: Star, guarded: Star
  let id: Any, id2: Any
  let peers: NpmPeer[] = []

  beforeAll(async () => {
    const options = { ...open, Refresh: seconds(1) }
    first = await Star.start(options)
    second = await Star.start(options)
    guarded = await Star.start({ Refresh: seconds(1) })
    id = await recordedId(stack, 'A')
    id2 = await recordedId(stack, 'B')
  })
  afterAll(() => Promise.all([first, second, guarded].map((s) => s.stop())))
  afterEach(() => {
    for (const peer of peers) peer.close()
    peers = []
  })

  /** A peer with no id that lets itself be listed without proof. */
  function peer(handler?: (connection: Any) => void): NpmPeer {
    peers.push(new NpmPeer(stack, { allowOpen: true }, handler))
    return peers.at(-1)!
  }

  describe('instance and filter', () => {
    it('creates one, and refuses to without new', () => {
      expect(new Transport()).toBeTruthy()
      expect(() => Transport()).toThrow()
    })

    it('knows the class by its symbol', () => expect(Transport.isWebsocketStar(new Transport())).toBe(true))

    it('filters what is not a star address', () => {
      const good = [`/ip4/1.2.3.4/tcp/5/ws/p2p-websocket-star/ipfs/${id.toB58String()}`, '/dns4/h/wss/p2p-websocket-star']
      const bad = ['/ip4/1.2.3.4/tcp/5', '/ip4/1.2.3.4/tcp/5/ws']
      expect(new Transport().filter([...good, ...bad].map(multiaddr)).map(String)).toEqual(good.map((g) => String(multiaddr(g))))
      expect(new Transport().filter(multiaddr(good[0]))).toHaveLength(1)
    })

    it('can be told its id later', async () => {
      const late = new NpmPeer(stack)
      peers.push(late)
      late.transport.lazySetId(id)
      const listener = late.transport.createListener(echo(stack))
      await called((done) => listener.listen(multiaddr(guarded.address(id.toB58String())), done))
      listener._down()
    })
  })

  describe('listen', () => {
    it('calls back, and emits listening', async () => {
      const one = peer()
      const listening = new Promise((resolve) => one.listener.once('listening', resolve))
      await one.listen(first.address(id.toB58String()))
      await listening
    })

    it('emits close when closed', async () => {
      const one = peer()
      await one.listen(first.address(id.toB58String()))
      const closed = new Promise((resolve) => one.listener.once('close', resolve))
      await called((done) => one.listener.close(done))
      await closed
      await until('it is gone', async () => (await first.metric('rendezvous_peers')) === 0)
    })

    it('gives its addresses', async () => {
      const one = peer()
      await one.listen(first.address(id.toB58String()))
      expect((await called<Any[]>((done) => one.listener.getAddrs(done))).map(String)).toEqual([one.address])
    })

    it('stays until its last connection ends', async () => {
      const [one, two] = [peer(), peer()]
      await one.listen(first.address(id.toB58String()))
      await two.listen(first.address(id2.toB58String()))
      const writing = pushable()
      const connection = await one.dial(two.address)
      pull(writing.source, connection)
      const back = readAll(stack, connection)
      await called((done) => one.listener.close(done))
      writing.push(Buffer.from('after close'))
      writing.end()
      expect(String(await back)).toBe('after close')
      await until('it is gone', async () => (await first.metric('rendezvous_peers')) === 1)
    })

    it('fails where nobody listens, with an error', async () => {
      const gone = await Star.start(open)
      const address = gone.address(id.toB58String())
      await gone.stop()
      const one = peer()
      await expect(one.listen(address)).rejects.toThrow()
      await until('the error event', () => one.errors.length > 0)
    })

    it('fails at a server with challenge without an id', async () => {
      const one = peer()
      await expect(one.listen(guarded.address(id.toB58String()))).rejects.toThrow('Crypto Challenge required but no Id provided')
    })

    it('fails with the id of another', async () => {
      const one = new NpmPeer(stack, { id: id2 })
      peers.push(one)
      await expect(one.listen(guarded.address(id.toB58String()))).rejects.toThrow('Id is not matching')
    })

    it('works at a server with challenge with its id', async () => {
      const one = new NpmPeer(stack, { id })
      peers.push(one)
      await one.listen(guarded.address(id.toB58String()))
    })
  })

  describe('dial', () => {
    it('on IPv4', async () => {
      const [one, two] = [peer(), peer()]
      await one.listen(first.address(id.toB58String()))
      await two.listen(first.address(id2.toB58String()))
      expect(String(await exchange(stack, await one.dial(two.address), [Buffer.from('some data')]))).toBe('some data')
    })

    it('through a name', async () => {
      const named = (name: string) => `/dns4/localhost/tcp/${first.port}/ws/p2p-websocket-star/ipfs/${name}`
      const [one, two] = [peer(), peer()]
      await one.listen(named(id.toB58String()))
      await two.listen(named(id2.toB58String()))
      expect(String(await exchange(stack, await one.dial(two.address), [Buffer.from('some data')]))).toBe('some data')
    })

    it('fails to one that is not there', async () => {
      const one = peer()
      await one.listen(first.address(id.toB58String()))
      await expect(one.dial(first.address(id2.toB58String()))).rejects.toThrow('Peer not found')
    })

    it('fails to a server where it does not listen', async () => {
      const one = peer()
      await one.listen(first.address(id.toB58String()))
      await expect(one.dial(second.address(id2.toB58String()))).rejects.toThrow('No listener for this server')
    })

    it('fails to one on another server', async () => {
      const [one, two] = [peer(), peer()]
      await one.listen(first.address(id.toB58String()))
      await two.listen(second.address(id2.toB58String()))
      await expect(one.dial(first.address(id2.toB58String()))).rejects.toThrow('Peer not found')
    })

    it('knows the observed address, and fails for want of peer info', async () => {
      const [one, two] = [peer(), peer()]
      await one.listen(first.address(id.toB58String()))
      await two.listen(first.address(id2.toB58String()))
      const connection = await one.dial(two.address)
      expect((await called<Any[]>((done) => connection.getObservedAddrs(done))).map(String)).toEqual([two.address])
      await expect(called((done) => connection.getPeerInfo(done))).rejects.toThrow('Peer Info not set yet')
      connection.setPeerInfo('info')
      expect(await called((done) => connection.getPeerInfo(done))).toBe('info')
    })

    it('an error of a writer reaches the reader', async () => {
      let come: (c: Any) => void = () => {}
      const there = new Promise<Any>((resolve) => (come = resolve))
      const [one, two] = [peer(), peer((c) => come(c))]
      await one.listen(first.address(id.toB58String()))
      await two.listen(first.address(id2.toB58String()))
      const connection = await one.dial(two.address)
      pull(pull.error('a reason'), connection)
      await expect(readAll(stack, await there)).rejects.toThrow('a reason')
    })
  })

  describe('discovery', () => {
    it('the second finds the first at once, the first the second', async () => {
      const [one, two] = [peer(), peer()]
      await one.listen(first.address(id.toB58String()))
      await two.listen(first.address(id2.toB58String()))
      expect(two.heard(one.address)).toBeGreaterThan(0) // the answer to the join tells
      await until('the first hears', () => one.heard(two.address) > 0)
    })

    it('says so again each interval', async () => {
      const [one, two] = [peer(), peer()]
      await one.listen(first.address(id.toB58String()))
      await two.listen(first.address(id2.toB58String()))
      await until('three times', () => one.heard(two.address) >= 3, 15_000) // the default interval would not do it
    })

    it('starts and stops with a callback', async () => {
      const { discovery } = peer().transport
      await called((done) => discovery.start(done))
      await called((done) => discovery.stop(done))
    })
  })

  it('comes back when the server does', async () => {
    let star = await Star.start({ ...open, Refresh: seconds(1) })
    const [one, two] = [peer(), peer()]
    await one.listen(star.address(id.toB58String()))
    await two.listen(star.address(id2.toB58String()))
    await star.stop('SIGKILL')
    await until('both see it', () => !one.socket.connected && !two.socket.connected)
    star = await star.again()
    await until('both are back', async () => (await star.metric('rendezvous_peers')) === 2)
    const third = peer()
    await third.listen(star.address((await newId(stack)).toB58String()))
    await until('all hear of each other', () => [one, two].every((p) => p.heard(third.address) > 0))
    for (const p of [one, two, third]) p.close()
    await star.stop()
  })
})

describe.each(stacks)('A-3 the suite of the server, %s stack', (stack) => {
  const addresses = [1, 2, 3, 4].map((n) => `/ip4/127.0.0.1/tcp/9090/ws/p2p-websocket-star/ipfs/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSooo3${'abcd'[n - 1]}`)
  const [c1, c2, c3, c4] = addresses as [string, string, string, string]
  let star: Star
  const sockets: Raw[] = []
  beforeAll(async () => void (star = await Star.start({ OpenJoins: true, Refresh: seconds(1) })))
  afterAll(async () => {
    for (const s of sockets) s.close()
    await star.stop()
  })
  const peersThere = async (n: number) => expect(await star.metric('rendezvous_peers')).toBe(n)

  it('starts and stops, on a free port and on the same again', async () => {
    const one = await Star.start(open)
    const { port } = one
    await one.stop()
    const two = await onThatPort(() => Star.start({ ...open, Port: port }))
    expect(two.port).toBe(port)
    await two.stop()
    expect(two.output).toContain('Rendezvous server stopped')
  })

  it('has no peers at first', () => peersThere(0))

  it('takes connections', async () => {
    for (let i = 0; i < 4; i++) sockets.push(await Raw.connect(star, stack))
    await peersThere(0)
  })

  it('the first joins', async () => {
    expect(await sockets[0]!.call('ss-join', c1, '')).toEqual([null, null, []])
    await peersThere(1)
  })

  it('the second joins and leaves, and the first hears', async () => {
    expect(await sockets[1]!.call('ss-join', c2, '')).toEqual([null, null, [c1]])
    await until('the first hears', () => sockets[0]!.heard(c2) > 0)
    await peersThere(2)
    sockets[1]!.socket.emit('ss-leave', c2)
    await until('it has left', async () => (await star.metric('rendezvous_peers')) === 1)
  })

  it('the third and the fourth join', async () => {
    expect(await sockets[2]!.call('ss-join', c3, '')).toEqual([null, null, [c1]])
    const [error, nothing, others] = await sockets[3]!.call('ss-join', c4, '')
    expect([error, nothing, others.sort()]).toEqual([null, null, [c1, c3].sort()])
    await peersThere(3)
  })

  it('the first dials the third, which hears from whom', async () => {
    const streams = await sockets[0]!.dial(c1, c3, 'a dial')
    expect(sockets[2]!.events.find((e) => e.name === 'ss-incomming')?.args.slice(0, 2)).toEqual(['a dial', c1])
    expect(String(await exchange(stack, streams, [Buffer.from('ping')]))).toBe('ping')
  })

  it('the first dials one that is not there any more', async () => {
    expect(await sockets[0]!.call('ss-dial', c1, c2, 'another')).toEqual(['Peer not found'])
  })

  it('a callee refuses with its own words', async () => {
    sockets[2]!.incoming = (_, answer) => answer('not today')
    expect(await sockets[0]!.call('ss-dial', c1, c3, 'a third')).toEqual(['not today'])
  })

  it('emits ws-peer each interval', async () => {
    const before = sockets[0]!.heard(c3)
    await until('it comes again, and again', () => sockets[0]!.heard(c3) - before >= 2)
  })

  it('counts joins and dials', async () => {
    const names = ['joins_total', 'joins_total_success', 'joins_total_failure', 'dials_total', 'dials_total_success', 'dials_total_failure']
    expect(await star.metrics(names.map((name) => `rendezvous_${name}`))).toEqual([4, 4, 0, 3, 1, 2])
  })

  it('forgets every client that disconnects', async () => {
    for (const s of sockets) s.close()
    await until('nobody is there', async () => (await star.metric('rendezvous_peers')) === 0)
  })

  it('has a page', async () => {
    const page = await (await fetch(star.url)).text()
    expect(page).toContain(`/ip4/127.0.0.1/tcp/${star.port}/ws/p2p-websocket-star`)
  })
})

describe.each(stacks)('A-3 the suite of socket.io-pull-stream, %s stack', (stack) => {
  // The package's own tests, which want mocha's words and a server on port 5982.
  const require = createRequire(new URL(`originals/${stack}/package.json`, import.meta.url))
  const cases: [string, (done: (error?: unknown) => void) => void][] = []
  Object.assign(globalThis, {
    describe: (_: string, body: () => void) => body(),
    it: (name: string, body: (done: (error?: unknown) => void) => void) => cases.push([name, body]),
  })
  for (const file of ['data', 'disconnect']) require(`socket.io-pull-stream/test/${file}.spec.js`)
  for (const word of ['describe', 'it']) delete (globalThis as Any)[word]

  let server: ChildProcess
  beforeAll(async () => {
    server = spawn(file('pullserver'), ['5982'], { stdio: ['pipe', 'pipe', 'inherit'] })
    await new Promise<void>((resolve, reject) => {
      server.stdout!.once('data', () => resolve())
      server.once('close', () => reject(new Error('the server ended')))
    })
  })
  afterAll(async () => {
    server.stdin!.end()
    await new Promise((resolve) => server.once('close', resolve))
  })

  it('has three cases', () => expect(cases).toHaveLength(3))
  it.each(cases)('%s', (_, body) => called((done) => body(done)))
})
