// Acceptance: what the server answers, and to whom it gives an
// address.
import { createHash } from 'node:crypto'
import { connect } from 'node:net'
import { createRequire } from 'node:module'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { called, NpmPeer, originals, pause, recordedId, stacks, until, type Any } from './npm.js'
import { publicKey, Raw, signature } from './raw.js'
import { open, Star } from './server.js'

const stack = 'recent'
const { crypto, PeerId } = originals(stack)

function makeKey(type: string): Promise<Any> {
  return called((done) => crypto.keys.generateKeyPair(type, 2048, done))
}

describe('a server with challenge', () => {
  let star: Star, raw: Raw, id: Any, other: Any, mine: string
  beforeAll(async () => {
    star = await Star.start()
    id = await recordedId(stack, 'A')
    other = await recordedId(stack, 'B')
    mine = star.address(id.toB58String())
    raw = await Raw.connect(star, stack)
  })
  afterAll(async () => {
    raw.close()
    await star.stop()
  })

  it('A-7 answers every row of the recorded errors', async () => {
    const key = publicKey(stack, id)
    const theirs = star.address(other.toB58String())
    const spelled = mine.replace('/ipfs/', '/p2p/')
    const rows: [string, Any[], Any][] = [
      ['no key', ['ss-join', mine, ''], ['Crypto Challenge required but no Id provided']],
      ['key that is not hex', ['ss-join', mine, 'zz'], ['Public key is not valid']],
      ['key of another id', ['ss-join', mine, publicKey(stack, other)], ['Id is not matching']],
      ['not a multiaddr', ['ss-join', 'nope', key], ['Invalid multiaddr']],
      ['valid multiaddr, wrong shape', ['ss-join', '/ip4/127.0.0.1/tcp/80', key], ['Invalid multiaddr']],
      ['data not a string', ['ss-join', mine, 5], ['Invalid arguments']],
      ['address not a string', ['ss-join', 5, key], ['Invalid arguments']],
      ['no arguments', ['ss-join'], ['Invalid arguments']],
      ['an unknown event', ['ss-what', mine], ['Invalid arguments']],
      ['dial before join', ['ss-dial', mine, theirs, 'd'], ['Not authorized for this address']],
      ['right key', ['ss-join', mine, key], [null, expect.stringContaining(mine)]],
      ['right key in upper case', ['ss-join', mine, key.toUpperCase()], [null, expect.any(String)]],
      ['right key, /p2p/ spelling', ['ss-join', spelled, key], [null, expect.any(String)]],
      ['bad signature (not hex)', ['ss-join', mine, 'zz'], ['Signature Invalid']],
      ['bad signature (wrong bytes)', ['ss-join', mine, '00'.repeat(256)], ['Signature Invalid']],
      ['empty signature', ['ss-join', mine, ''], ['Crypto Challenge required but no Id provided']],
    ]
    for (const [name, args, answer] of rows) expect(await raw.call(args[0], ...args.slice(1)), name).toEqual(answer)

    const joiner = await Raw.connect(star, stack)
    const [, nonce] = await joiner.call('ss-join', mine, key)
    const proof = await signature(id, nonce)
    expect(await joiner.call('ss-join', mine, proof)).toEqual([null, null, []])
    expect(await joiner.call('ss-join', mine, proof), 'again, while joined').toEqual([null, null, []])
    expect(await joiner.call('ss-dial', mine, theirs, 'd')).toEqual(['Peer not found'])
    expect(await joiner.call('ss-dial', theirs, mine, 'd')).toEqual(['Not authorized for this address'])
    expect(await joiner.call('ss-dial', mine, 'nope', 'd')).toEqual(['Invalid multiaddr'])
    expect(await joiner.call('ss-dial', mine, mine, 5)).toEqual(['Invalid arguments'])
    expect(await joiner.call('ss-dial', mine, mine, 'x'.repeat(129))).toEqual(['Dial id is not valid'])
    joiner.socket.emit('ss-leave', mine)
    expect(await joiner.call('ss-join', mine, proof), 'an old signature').toEqual(['Public key is not valid'])
    joiner.close()
  })

  it.each(['RSA', 'Ed25519', 'secp256k1'])('A-7 takes keys of type %s', async (type) => {
    const key = await makeKey(type)
    const text = key.public.bytes.toString('hex') as string
    const hash = key.public.bytes.length <= 42 ? Buffer.concat([Buffer.from([0, key.public.bytes.length]), key.public.bytes]) : null
    const name: string = hash ? new PeerId(hash).toB58String() : (await called<Any>((done) => PeerId.createFromPrivKey(key.bytes, done))).toB58String()
    const client = await Raw.connect(star, stack)
    const address = star.address(name)
    const [, nonce] = await client.call('ss-join', address, text)
    const sign = (data: string): Promise<Buffer> => called((done) => key.sign(Buffer.from(data), done))
    expect(await client.call('ss-join', address, '00'), 'a signature of impossible form').toEqual([type === 'RSA' ? 'Signature Invalid' : 'Crypto error'])
    expect(await client.call('ss-join', address, (await sign('something else')).toString('hex'))).toEqual(['Signature Invalid'])
    expect(await client.call('ss-join', address, (await sign(nonce)).toString('hex'))).toEqual([null, null, expect.any(Array)])
    client.close()
    if (type !== 'Ed25519') return
    const hashed = new PeerId(Buffer.concat([Buffer.from([0x12, 32]), createHash('sha256').update(key.public.bytes).digest()]))
    expect(hashed.toB58String()).toMatch(/^Qm/)
    expect(await raw.call('ss-join', star.address(hashed.toB58String()), text), 'Qm… with Ed25519').toEqual(['Id is not matching'])
  })

  /** The clients of earlier tests have left. */
  const alone = () => until('nobody is there', async () => (await star.metric('rendezvous_peers')) === 0)

  it('A-8 a wrong signature, then the right one, to the same challenge', async () => {
    const client = await Raw.connect(star, stack)
    const [, nonce] = await client.call('ss-join', mine, publicKey(stack, id))
    expect(await client.call('ss-join', mine, 'ab'.repeat(256))).toEqual(['Signature Invalid'])
    expect(await client.call('ss-join', mine, await signature(id, nonce))).toEqual([null, null, expect.any(Array)])
    client.close()
  })

  it('A-8 the newest socket that proves gets the address', async () => {
    await alone()
    const old = await Raw.connect(star, stack)
    expect(await old.prove(mine, id)).toEqual([null, null, expect.any(Array)])
    const fresh = await Raw.connect(star, stack)
    expect(await fresh.prove(mine, id)).toEqual([null, null, expect.any(Array)])
    const caller = await Raw.connect(star, stack)
    const theirs = star.address(other.toB58String())
    expect(await caller.prove(theirs, other)).toEqual([null, null, [mine]])
    await caller.dial(theirs, mine, 'to the newest')
    expect([old, fresh].map((s) => s.events.filter((e) => e.name === 'ss-incomming').length)).toEqual([0, 1])
    expect(await old.call('ss-dial', mine, theirs, 'by the old one')).toEqual(['Not authorized for this address'])
    old.close() // must not take the address along
    await until('the old one is gone', async () => (await star.metric('rendezvous_peers')) === 2)
    await caller.dial(theirs, mine, 'once more')
    for (const s of [fresh, caller]) s.close()
  })

  it('A-8 an address spelled /p2p/ joins and is announced as /ipfs/', async () => {
    await alone()
    const [listening, spelling] = [await Raw.connect(star, stack), await Raw.connect(star, stack)]
    const theirs = star.address(other.toB58String())
    await listening.prove(mine, id)
    expect(await spelling.prove(theirs.replace('/ipfs/', '/p2p/'), other)).toEqual([null, null, [mine]])
    await until('the announcement', () => listening.heard(theirs) > 0)
    await listening.dial(mine, theirs.replace('/ipfs/', '/p2p/'), 'either spelling')
    for (const s of [listening, spelling]) s.close()
  })
})

describe.each(stacks)('the client of the %s stack on an open server', (stack) => {
  let star: Star
  beforeAll(async () => void (star = await Star.start(open)))
  afterAll(() => star.stop())

  it('A-8 refuses it, and joins with its flag', async () => {
    const id = await recordedId(stack, 'A')
    const careful = new NpmPeer(stack, { id })
    await expect(careful.listen(star.address(id.toB58String()))).rejects.toThrow('crypto challenge disabled')
    const careless = new NpmPeer(stack, { id, allowOpen: true })
    await careless.listen(star.address(id.toB58String()))
    expect(await careless.dial(careless.address)).toBeTruthy()
    careless.close()
  })
})

describe('malformed input', () => {
  let star: Star, bystander: Raw
  const WebSocket = createRequire(new URL('originals/recent/package.json', import.meta.url))('ws')
  beforeAll(async () => {
    star = await Star.start(open)
    bystander = await Raw.at(star, stack, '/ip4/1.1.1.1')
  })
  afterAll(async () => {
    bystander.close()
    await star.stop()
  })

  /** The close code of a WebSocket that sends these messages. */
  async function closedWith(...messages: (string | Buffer)[]): Promise<number> {
    const socket = new WebSocket(`${star.url.replace('http', 'ws')}/socket.io/?EIO=3&transport=websocket`)
    await called((done) => socket.once('open', done))
    for (const message of messages) socket.send(message)
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(0), 30_000) // it stays
      socket.once('close', (code: number) => {
        clearTimeout(timer)
        resolve(code)
      })
    })
  }

  it.each<[string, number, (string | Buffer)[]]>([
    ['a packet of an unknown type', 1002, ['9']],
    ['text that is no packet', 1002, ['hello']],
    ['an event that is no JSON', 1002, ['42["ss-join",']],
    ['an event that is no array', 1002, ['42{"a":1}']],
    ['an event without a name', 1002, ['42[]']],
    ['a name that is no string', 1002, ['42[5]']],
    ['100,000 nested arrays', 1002, [`42["ss-join",${'['.repeat(100_000)}`]],
    ['30,000 nested arrays that end', 1002, [`42["ss-join",${'['.repeat(30_000)}${']'.repeat(30_000)}]`]],
    ['a long event', 1002, [`42["ss-join","${'x'.repeat(70_000)}"]`]],
    ['an over-long message', 1009, [`42["ss-join","${'x'.repeat(1_000_001)}"]`]],
    ['an over-long attachment', 1009, ['451-["socket.io-pull-stream.queue.x.dialer",{"_placeholder":true,"num":0}]', Buffer.alloc(1_000_001, 4)]],
    ['an attachment without an event', 1002, [Buffer.from([4, 1, 2])]],
    ['an attachment that is no message', 1002, ['451-["x",{"_placeholder":true,"num":0}]', Buffer.from([5, 1])]],
    ['text between event and attachment', 1002, ['451-["x",{"_placeholder":true,"num":0}]', '42["y"]']],
    ['eleven attachments', 1002, ['4511-["x"]']],
    ['a placeholder outside the count', 1002, ['451-["x",{"_placeholder":true,"num":7}]', Buffer.from([4])]],
  ])('A-10 %s ends that connection with %d', async (_, code, messages) => {
    expect(await closedWith(...messages)).toBe(code)
    await star.alive()
    expect(bystander.ended).toBe('')
  })

  it('A-10 unmasked frames, bytes that are no HTTP, and half requests end alone', async () => {
    const head = 'GET /socket.io/?EIO=3&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
    const upgrade = `${head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`
    const all: [string, Buffer][] = [
      ['unmasked', Buffer.concat([Buffer.from(upgrade), Buffer.from([0x81, 1, 0x32])])],
      ['a length of 2⁶³−1', Buffer.concat([Buffer.from(upgrade), Buffer.from([0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0])])],
      ['reserved bits', Buffer.concat([Buffer.from(upgrade), Buffer.from([0xf1, 0x80, 0, 0, 0, 0])])],
      ['no HTTP', Buffer.from([22, 3, 1, 0, 200, 1, 0, 0, 0, 10, 13, 10, 13, 10])],
    ]
    for (const [name, bytes] of all) {
      const socket = connect(star.port, '127.0.0.1')
      socket.on('error', () => {})
      socket.write(bytes)
      socket.resume()
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`${name}: not ended`)), 30_000)
        socket.once('close', () => (clearTimeout(timer), resolve()))
      })
    }
    await star.alive()
    expect(bystander.ended).toBe('')
  })

  it('A-10 wrong types in stream events harm nobody', async () => {
    const address = '/ip4/2.2.2.2'
    const client = await Raw.at(star, stack, address)
    const { sink, source } = await client.dial(address, '/ip4/1.1.1.1', 'odd')
    const queue = 'socket.io-pull-stream.queue.odd.dialer'
    for (const odd of [5, null, { a: 1 }, [1, 300], ['x'], true]) client.socket.emit(queue, odd)
    client.socket.emit(queue)
    client.socket.emit('socket.io-pull-stream.accept.unknown.dialer')
    client.socket.emit('socket.io-pull-stream.error.unknown.dialer', true)
    const { pull } = originals(stack)
    pull(pull.values([Buffer.from('still here')]), sink)
    expect(String(await called<Buffer[]>((done) => pull(source, pull.collect(done))))).toBe('still here')
    await pause(50)
    expect(client.ended).toBe('')
    client.close()
  })
})
