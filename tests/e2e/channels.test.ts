// Channels between pages: on one node, on two, and on two that can't reach each
// other, with a third that relays.
import { readFileSync } from 'node:fs'
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { launch, loseConnection, person } from './browser.js'
import { channelSite as site } from './channelsite.js'
import { Parley } from './parley.js'
import { findInMemory, listening, metric, resident } from './watch.js'

/** What the site's page has given its global scope, inside `evaluate`. */
declare const globalThis: any

const MiB = 1 << 20

let browser: Browser
let home: Parley
let other: Parley // connected to home
const ending: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  ;[browser, home] = await Promise.all([launch(), Parley.start({ auth: 'none', site })])
  other = await Parley.start({ auth: 'none', site, connect: home.addresses })
})
afterEach(async () => {
  for (const end of ending.splice(0).reverse()) await end()
})
afterAll(async () => {
  await browser.close()
  await Promise.all([home.stop(), other.stop()])
})

/** A page of the site that is in the space, and who it is. */
async function visit(node: Parley, identity: string): Promise<{ page: Page; peer: string }> {
  const { context } = await person(browser)
  ending.push(() => context.close())
  const page = await context.newPage()
  await page.goto(node.link)
  return { page, peer: await join(page, identity) }
}

async function join(page: Page, identity: string): Promise<string> {
  await page.waitForFunction(() => globalThis.ready, undefined, { polling: 20 })
  return page.evaluate((identity) => globalThis.join(identity), identity)
}

/** Two pages with a channel between them, which both call `ch`. */
async function pair(a: Parley, b: Parley, protocol: string) {
  const [ann, bob] = await Promise.all([visit(a, 'ann'), visit(b, 'bob')])
  await bob.page.evaluate((protocol) => globalThis.accept(protocol), protocol)
  await open(ann.page, bob, protocol)
  return { ann, bob }
}

async function open(from: Page, to: { page: Page; peer: string }, protocol: string, options = {}): Promise<void> {
  const taken = to.page.evaluate(async () => void (globalThis.ch = (await globalThis.accepted.next()).value))
  await from.evaluate(
    async ([peer, protocol, options]) => void (globalThis.ch = await globalThis.room.open(peer, protocol, options)),
    [to.peer, protocol, options] as const,
  )
  await taken
}

const info = (page: Page) => page.evaluate(() => globalThis.ch.info)
const made = (page: Page) => page.evaluate(() => globalThis.made.bytes as number)

/** Writes to the page's channel what a seed gives, and leaves it open; the page keeps the promise. */
const write = (page: Page, seed: number, size: number) =>
  page.evaluate(([seed, size]) => void (globalThis.written = globalThis.source(seed, size).pipeTo(globalThis.ch.writable, { preventClose: true })), [seed, size] as const)
const written = (page: Page) => page.evaluate(() => globalThis.written)
const take = (page: Page, size: number) => page.evaluate((size) => globalThis.take(globalThis.ch, size) as Promise<string>, size)
const hashOf = (page: Page, seed: number, size: number) => page.evaluate(([seed, size]) => globalThis.hashOf(seed, size) as Promise<string>, [seed, size] as const)

/** Waits until a page that writes goes no further, after so many bytes at least; says how far it came. */
async function stands(page: Page, least: number): Promise<number> {
  let before = -1
  let same = 0
  await until(async () => {
    const now = await made(page)
    same = now === before && now >= least ? same + 1 : 0
    before = now
    return same === 20
  })
  return before
}

describe('two pages of one node', () => {
  test('messages arrive in order, with their borders, both ways', async () => {
    const { ann, bob } = await pair(home, home, 'count/1')
    expect(await info(ann.page)).toMatchObject({ path: 'local', verified: true, remote: bob.peer })
    expect(await info(bob.page)).toMatchObject({ path: 'local', verified: true, remote: ann.peer })
    const talk = async () => {
      const { ch } = globalThis
      const sizes = Array.from({ length: 500 }, (_, i) => (i % 100 === 99 ? 65_536 : (i * 37) % 1000))
      const sending = (async () => {
        for (const [i, size] of sizes.entries()) await ch.send(new Uint8Array(size).fill(i))
      })()
      const got: string[] = []
      for await (const msg of ch.messages) {
        got.push(`${msg.length} × ${msg[0]}`)
        if (got.length === sizes.length) break
      }
      await sending
      return { got, want: sizes.map((size, i) => `${size} × ${size ? i % 256 : undefined}`) }
    }
    for (const { got, want } of await Promise.all([ann.page.evaluate(talk), bob.page.evaluate(talk)])) expect(got).toEqual(want)
  })

  test('a reader that stops holds up the writer, and nothing else', async () => {
    const { ann, bob } = await pair(home, home, 'slow/1')
    await ann.page.evaluate(async () => {
      const writer = globalThis.ch.writable.getWriter()
      globalThis.writing = (async () => {
        const reader = globalThis.source(3, 8 << 20).getReader()
        for (let r = await reader.read(); !r.done; r = await reader.read()) {
          await writer.ready
          writer.write(r.value)
        }
        await writer.ready
      })()
      globalThis.writer = writer
    })
    const came = await stands(ann.page, 256 << 10)
    expect(came).toBeLessThan(2 * MiB) // windows of page, node, node and page
    expect(await ann.page.evaluate(() => globalThis.writer.desiredSize)).toBeLessThanOrEqual(0)

    // beside it: another channel of the same two pages, and messages
    await bob.page.evaluate(async () => {
      const loop = globalThis.room.accept('echo/1')
      await loop.ready
      void (async () => {
        for await (const c of loop) for await (const m of c.messages) await c.send(m)
      })()
    })
    const echo = await ann.page.evaluate(async (peer) => {
      const c = await globalThis.room.open(peer, 'echo/1')
      await c.send(new TextEncoder().encode('still here'))
      for await (const m of c.messages) return new TextDecoder().decode(m)
      return ''
    }, bob.peer)
    expect(echo).toBe('still here')

    expect(await take(bob.page, 8 * MiB)).toBe(await hashOf(ann.page, 3, 8 * MiB))
    await ann.page.evaluate(() => globalThis.writing)
  })

  test('errors say what is wrong', async () => {
    const { ann, bob } = await pair(home, home, 'errors/1')
    const codes = await ann.page.evaluate(async (peer) => {
      const { room, ch, node, codeOf } = globalThis
      return {
        nobodyListens: await codeOf(room.open(peer, 'nothing/1')),
        nobody: await codeOf(room.open('12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN', 'errors/1')),
        noPeer: await codeOf(room.open('bob', 'errors/1')),
        noName: await codeOf(room.open(peer, '')),
        tooLarge: await codeOf(ch.send(new Uint8Array(65_537))),
        noBytes: await codeOf(ch.send('text')),
        again: await codeOf(node.space('e2e').join()),
        acceptTwice: await codeOf((async () => (room.accept('a/1'), room.accept('a/1')))()),
        viaItself: await codeOf(room.open(peer, 'errors/1', { via: peer })),
      }
    }, bob.peer)
    expect(codes).toMatchObject({
      nobodyListens: 'bad-space-hash', nobody: 'bad-to-id', viaItself: 'bad-to-id', noPeer: 'malformed', tooLarge: 'too-large', noBytes: 'malformed',
      again: 'already-started', acceptTwice: 'already-started',
    })
    expect(codes.noName).not.toBe('done')

    // what was said before an error is read, then the reader gets it
    const read = bob.page.evaluate(async () => {
      const got: number[] = []
      try {
        for await (const m of globalThis.ch.messages) got.push(m.length)
      } catch (e: any) {
        return { got, name: e.name, code: e.code, text: e.message, closed: await globalThis.ch.closed, send: await globalThis.codeOf(globalThis.ch.send(new Uint8Array(1))) }
      }
      return { got }
    })
    await ann.page.evaluate(async () => {
      await globalThis.ch.send(new Uint8Array(7))
      await globalThis.ch.close({ code: 'limit', text: 'enough of this' })
    })
    const seen = await read
    expect(seen).toMatchObject({ name: 'ParleyError', code: 'limit', text: 'the other end: enough of this', closed: { code: 'limit', text: 'the other end: enough of this' }, send: 'limit' })
    expect([[7], []]).toContainEqual(seen.got) // an error overtakes what is not read yet

    expect(await ann.page.evaluate(async (peer) => (await globalThis.room.leave(), globalThis.codeOf(globalThis.room.open(peer, 'errors/1'))), bob.peer)).toBe('not-joined')
  })

  test('an AbortSignal ends an open, a send, a pipe and a loop', async () => {
    const { ann, bob } = await pair(home, home, 'abort/1')
    const codes = await ann.page.evaluate(async (peer) => {
      const { room, ch, codeOf } = globalThis
      const done = AbortSignal.abort()
      const open = await codeOf(room.open(peer, 'abort/1', { signal: done }))
      const join = await codeOf(globalThis.node.space('other').join({ signal: done }))
      // sends wait once the windows are full
      let sent = 0
      for (;;) {
        const size = 65_536
        const code = await codeOf(ch.send(new Uint8Array(size).fill(1), { signal: AbortSignal.timeout(500) }))
        if (code !== 'done') return { open, join, send: code, sent, after: ch.send(new Uint8Array(1).fill(2)) && 0 }
        sent += size
      }
    }, bob.peer)
    expect(codes).toMatchObject({ open: 'cancelled', join: 'cancelled', send: 'timeout' })
    // what was given up did not go out
    const got = await bob.page.evaluate(async () => {
      let bytes = 0
      for await (const m of globalThis.ch.messages) {
        if (m[0] === 2) return bytes
        bytes += m.length
      }
      return -1
    })
    expect(got).toBe(codes.sent)

    await bob.page.evaluate(() => void (globalThis.end = globalThis.ch.closed))
    const pipe = await ann.page.evaluate(async () => {
      const stop = new AbortController()
      const piped = globalThis.source(4, 1 << 30).pipeTo(globalThis.ch.writable, { signal: stop.signal })
      stop.abort(new Error('the person pressed stop'))
      return piped.then(() => 'done', (e: Error) => e.message)
    })
    expect(pipe).toBe('the person pressed stop')
    expect(await bob.page.evaluate(() => globalThis.end)).toEqual({ code: 'unknown', text: 'the other end: the person pressed stop' })

    const loop = await bob.page.evaluate(async () => {
      const stop = new AbortController()
      const loop = globalThis.room.accept('loop/1', { signal: stop.signal })
      await loop.ready
      const next = loop.next()
      stop.abort()
      return (await next).done
    })
    expect(loop).toBe(true)
    // the loop is over at once, and its node hears of it soon
    await until(async () => (await ann.page.evaluate((peer) => globalThis.codeOf(globalThis.room.open(peer, 'loop/1')), bob.peer)) === 'bad-space-hash')
  })

  test('a page that reloads ends its channels with an error at the other, and can be reached again', async () => {
    const { ann, bob } = await pair(home, home, 'reload/1')
    const end = bob.page.evaluate(async () => {
      const read = globalThis.codeOf((async () => {
        for await (const _ of globalThis.ch.messages);
      })())
      return { closed: await globalThis.ch.closed, read: await read }
    })
    await ann.page.reload()
    expect(await end).toMatchObject({ closed: { code: 'unknown', text: 'the other end: the page is gone' }, read: 'unknown' })
    expect(await join(ann.page, 'ann')).toBe(ann.peer)
    await open(ann.page, bob, 'reload/1')
    await ann.page.evaluate(() => globalThis.ch.close())
    expect(await bob.page.evaluate(() => globalThis.ch.closed)).toBe(null)
  })
})

describe('two nodes', () => {
  test('10 MiB each way at once on one channel, through lost connections of both pages', async () => {
    const { ann, bob } = await pair(home, other, 'bulk/1')
    expect(await info(ann.page)).toMatchObject({ path: 'direct', verified: true, remote: bob.peer })
    expect(await info(bob.page)).toMatchObject({ path: 'direct', verified: true, remote: ann.peer })
    await Promise.all([write(ann.page, 5, 10 * MiB), write(bob.page, 6, 10 * MiB)])
    const taken = Promise.all([take(ann.page, 10 * MiB), take(bob.page, 10 * MiB)])
    await until(async () => (await made(ann.page)) > 3 * MiB)
    await loseConnection(ann.page)
    await until(async () => (await made(bob.page)) > 6 * MiB)
    await loseConnection(bob.page)
    expect(await taken).toEqual([await hashOf(ann.page, 6, 10 * MiB), await hashOf(ann.page, 5, 10 * MiB)])
    await Promise.all([written(ann.page), written(bob.page)])
    await ann.page.evaluate(() => globalThis.ch.close())
    expect(await bob.page.evaluate(() => globalThis.ch.closed)).toBe(null)
  })

  test('the page of the manual, copied: a file goes from one to the other', async () => {
    const manual = readFileSync(new URL('../../docs/manual.md', import.meta.url), 'utf8')
    const site = { 'index.html': /\*\*channels\*\*[^]*?```html\n([^]*?)```/.exec(manual)![1]!, 'favicon.ico': '' }
    const two = await Parley.start({ auth: 'none', site })
    ending.push(() => two.stop())
    const one = await Parley.start({ auth: 'none', site, connect: two.addresses })
    ending.push(() => one.stop())
    const open = async (node: Parley) => {
      const { context, errors } = await person(browser)
      ending.push(() => context.close())
      const page = await context.newPage()
      await page.goto(node.link)
      const log = page.locator('#log')
      await log.filter({ hasText: 'I am' }).waitFor()
      return { page, log, errors, peer: /I am (\S+)/.exec((await log.textContent())!)![1]! }
    }
    const [ann, bob] = [await open(one), await open(two)]
    await ann.page.locator('#to').fill(bob.peer)
    await ann.page.locator('#file').setInputFiles({ name: 'photo.jpg', mimeType: 'image/jpeg', buffer: Buffer.alloc(3_000_001, 7) })
    await bob.log.filter({ hasText: `${ann.peer} sent 3000001 bytes` }).waitFor()
    await ann.log.filter({ hasText: 'sent by path direct' }).waitFor()
    expect([...ann.errors, ...bob.errors]).toEqual([])
  })
})

describe('two nodes that cannot reach each other', () => {
  test('10 MiB each way through a third, which holds little of it and reads nothing', async () => {
    // A relay that collects its garbage early shows by its memory what it holds.
    const relay = await Parley.start({ auth: 'none', args: ['--set', 'relay.profile=own'], env: { GOGC: '20' } })
    ending.push(() => relay.stop())
    const hidden = () => Parley.start({ auth: 'none', site, args: ['--set', 'p2p.listen=none', '--set', `p2p.relays=${relay.addresses[0]}`] })
    const [left, right] = await Promise.all([hidden(), hidden()])
    ending.push(() => left.stop(), () => right.stop())
    const [ann, bob] = await Promise.all([visit(left, 'ann'), visit(right, 'bob')])
    await until(async () => (await metric(relay, 'parley_relay', 'agents')) === 2)

    // Nothing but the relay has a port that a node could be dialled at.
    expect([listening(left.pid), listening(right.pid)]).toEqual([[left.port], [right.port]])
    await bob.page.evaluate(() => globalThis.accept('bulk/1'))
    expect(await ann.page.evaluate((peer) => globalThis.codeOf(globalThis.room.open(peer, 'bulk/1', { directOnly: true })), bob.peer)).toBe('bad-to-id')
    await open(ann.page, bob, 'bulk/1')
    expect(await info(ann.page)).toMatchObject({ path: 'relay', relay: relay.peer, verified: true, remote: bob.peer })
    expect(await info(bob.page)).toMatchObject({ path: 'relay', relay: relay.peer, verified: true, remote: ann.peer })
    expect(await ann.page.evaluate((peer) => globalThis.node.path(peer), bob.peer)).toMatchObject({ path: 'none' })

    // While nobody reads, the relay holds no more than a bridge may.
    const before = resident(relay.pid)
    await write(ann.page, 1, 10 * MiB)
    expect(await stands(ann.page, 256 << 10)).toBeLessThan(2 * MiB)
    expect(await metric(relay, 'parley_relay', 'buffer_bytes')).toBeLessThanOrEqual(512 << 10)
    const clear = 'in the clear, seed 1. '
    for (const end of [left, right]) await until(() => findInMemory(end.pid, clear) > 0) // where it is read, it can be seen
    expect(findInMemory(relay.pid, clear)).toBe(0)

    await write(bob.page, 2, 10 * MiB)
    const taken = Promise.all([take(ann.page, 10 * MiB), take(bob.page, 10 * MiB)])
    let held = 0
    const watch = setInterval(() => void metric(relay, 'parley_relay', 'buffer_bytes').then((n) => (held = Math.max(held, n)), () => {}), 20)
    const hashes = await taken.finally(() => clearInterval(watch))
    expect(hashes).toEqual([await hashOf(ann.page, 2, 10 * MiB), await hashOf(ann.page, 1, 10 * MiB)])
    expect(held).toBeLessThanOrEqual(512 << 10)
    expect(findInMemory(relay.pid, 'in the clear')).toBe(0)
    const after = resident(relay.pid)
    console.log(`relay: ${mib(await metric(relay, 'parley_relay_bytes_total'))} carried, at most ${held / 1024} KiB held, resident ${mib(before.most)}, later ${mib(after.most)}`)
    expect(after.most - before.most).toBeLessThan(12 * MiB)
    expect(await metric(relay, 'parley_relay_bytes_total')).toBeGreaterThan(20 * MiB)

    await ann.page.evaluate(() => globalThis.ch.close())
    expect(await bob.page.evaluate(() => globalThis.ch.closed)).toBe(null)
    await until(async () => (await metric(relay, 'parley_relay', 'bridges')) === 0)
  })
})

const mib = (bytes: number) => `${(bytes / MiB).toFixed(1)} MiB`

/** Waits for a condition, looking at it every few milliseconds. */
async function until(condition: () => unknown): Promise<void> {
  await vi.waitUntil(condition, { timeout: 60_000, interval: 15 })
}
