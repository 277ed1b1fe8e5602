// Acceptance A-5: a real browser, whose XMLHttpRequest has binary payloads, and
// the recorded ones, byte for byte.
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { launch } from '../e2e/browser.js'
import { exchange, NpmPeer, stacks, type Any } from './npm.js'
import { ways } from './raw.js'
import { open, seconds, Star } from './server.js'

let star: Star, site: Server, browser: Browser, page: Page
const scripts = {
  'recent.js': 'recent/node_modules/socket.io-client/dist/socket.io.js',
  '2019.js': '2019/node_modules/socket.io-client/dist/socket.io.js',
  'star.js': 'recent/node_modules/libp2p-websocket-star/dist/index.min.js',
}

beforeAll(async () => {
  star = await Star.start({ ...open, Refresh: seconds(3600) }) // each is told once
  site = createServer((req, res) => {
    const script = scripts[req.url!.slice(1) as keyof typeof scripts]
    if (script) return res.setHeader('Content-Type', 'text/javascript').end(readFileSync(new URL(`originals/${script}`, import.meta.url)))
    res.setHeader('Content-Type', 'text/html').end('<!doctype html><title>star</title>')
  })
  await new Promise<void>((resolve) => site.listen(0, '127.0.0.1', resolve))
  browser = await launch()
})
afterAll(async () => {
  await browser?.close()
  site?.close()
  await star.stop()
})

describe.each(stacks)('A-5 Chromium with the client of the %s stack', (stack) => {
  beforeAll(async () => {
    page = await browser.newPage()
    await page.goto(`http://127.0.0.1:${(site.address() as AddressInfo).port}/`) // another origin than the star's
    await page.addScriptTag({ url: `/${stack}.js` })
  })
  afterAll(() => page.close())

  it.each(Object.keys(ways))('on %s: buffers there and back', async (way) => {
    const asked: string[] = []
    page.on('response', (r) => r.url().includes('transport=polling') && asked.push(`${new URL(r.url()).searchParams.has('b64')} ${r.headers()['content-type']}`))
    const got = await page.evaluate(
      async ({ url, way }) => {
        const connect = () => (globalThis as any).io(url, { forceNew: true, ...way })
        const [a, b] = [connect(), connect()]
        const call = (s: any, ...args: any[]) => new Promise<any[]>((resolve) => s.emit(...args, (...answer: any[]) => resolve(answer)))
        const prefix = 'socket.io-pull-stream'
        const joins = [await call(a, 'ss-join', '/ip4/1.1.1.1', ''), await call(b, 'ss-join', '/ip4/2.2.2.2', '')]
        b.on('ss-incomming', (id: string, _: string, answer: () => void) => {
          b.on(`${prefix}.queue.${id}.dialer`, (data: ArrayBuffer) => b.emit(`${prefix}.queue.${id}.listener`, data))
          b.on(`${prefix}.error.${id}.dialer`, () => b.emit(`${prefix}.error.${id}.listener`, true))
          b.emit(`${prefix}.accept.${id}.dialer`)
          answer()
        })
        const got: string[] = []
        const ended = new Promise<void>((resolve) => a.on(`${prefix}.error.d.listener`, () => resolve()))
        a.on(`${prefix}.queue.d.listener`, (data: ArrayBuffer) => got.push([...new Uint8Array(data)].join()))
        const dial = await call(a, 'ss-dial', '/ip4/1.1.1.1', '/ip4/2.2.2.2', 'd')
        a.emit(`${prefix}.accept.d.listener`)
        for (const bytes of [[0, 255, 4, 128, 10], [], [...new TextEncoder().encode('grüße 🎈')]])
          a.emit(`${prefix}.queue.d.dialer`, new Uint8Array(bytes).buffer)
        a.emit(`${prefix}.error.d.dialer`, true)
        await ended
        const transport = a.io.engine.transport.name
        for (const s of [a, b]) s.disconnect()
        return { joins: joins.map((j) => j[0]), dial, got, transport }
      },
      { url: star.url, way: ways[way]! },
    )
    const text = [...Buffer.from('grüße 🎈')].join()
    expect(got).toEqual({ joins: [null, null], dial: [], got: ['0,255,4,128,10', '', text], transport: ways[way]!.transports!.at(-1) })
    page.removeAllListeners('response')
    if (way === 'polling alone') expect(asked).toContain('false application/octet-stream')
    if (way === 'polling with b64=1') {
      expect(asked).toContain('true text/plain; charset=UTF-8')
      expect(asked).not.toContain('true application/octet-stream')
    }
  })
})

it('A-5 the original transport as browsers had it is met by one of Node', async () => {
  page = await browser.newPage()
  await page.goto(`http://127.0.0.1:${(site.address() as AddressInfo).port}/`)
  await page.addScriptTag({ url: '/star.js' })
  const there = star.address('QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSooo3b')
  await page.evaluate(
    ({ there, port }) => {
      const transport = new (globalThis as any).Libp2PWebsocketStar({ allowJoinWithDisabledChallenge: true })
      const listener = transport.createListener((connection: any) => connection.sink(connection.source)) // an echo
      // The bundle doesn't give its multiaddrs away: this is what it asks of one.
      const protocols = ['ip4', 'tcp', 'ws', 'p2p-websocket-star', 'ipfs']
      const address = { protos: () => protocols.map((name) => ({ name })), stringTuples: () => [[4, '127.0.0.1'], [6, port]], toString: () => there }
      return new Promise<void>((resolve, reject) => listener.listen(address, (error: unknown) => (error ? reject(error) : resolve())))
    },
    { there, port: String(star.port) },
  )
  const peer = new NpmPeer('recent', { allowOpen: true })
  await peer.listen(star.address('QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSooo3a'))
  expect(peer.heard(there)).toBe(1)
  const data = randomBytes(300_000)
  expect((await exchange('recent', await peer.dial(there), [data])).equals(data)).toBe(true)
  peer.close()
  await page.close()
})

it('A-5 the recorded binary payloads, byte for byte', async () => {
  const star = await Star.start(open) // where nobody else is
  const all = JSON.parse(readFileSync(new URL('../../star/testdata/star.json', import.meta.url), 'utf8')).scenarios as Any[]
  const frames = all.find((s) => s.name === 'polling-xhr2-binary-payload').frames as Any[]
  const sids = new Map<string, string>() // recorded, ours
  let compared = 0
  for (const [i, f] of frames.entries()) {
    if (f.dir !== 'c2s') continue
    const answer = frames.slice(i).find((a) => a.dir === 's2c' && a.req === f.req)
    const url = String(f.url).replace(/sid=(.*)$/, (_, sid) => `sid=${sids.get(sid)}`)
    // The reference counts its questions over all connections: this was number 2.
    const sent = f.body?.hex ? Buffer.from(f.body.hex, 'hex') : f.body?.text.replace('5:432[]', '5:430[]')
    const type = f.body?.hex ? { 'Content-Type': 'application/octet-stream' } : { 'Content-Type': 'text/plain;charset=UTF-8' }
    const got = await fetch(star.url + url, { method: f.method, headers: sent ? type : {}, body: sent })
    const body = Buffer.from(await got.arrayBuffer())
    expect(got.status).toBe(200)
    if (f.url.includes('sid=')) {
      expect(got.headers.get('content-type')).toBe(answer.headers['content-type'])
      expect(body.toString('hex')).toBe(answer.body.hex ?? Buffer.from(answer.body.text.replace('422["ss-inc', '420["ss-inc')).toString('hex'))
      if (answer.body.hex) compared++
    } else {
      const [recorded, ours] = [String(answer.body.text), body.toString()].map((text) => /"sid":"([^"]*)"/.exec(text)![1]!)
      sids.set(recorded!, ours!)
    }
  }
  expect(compared).toBe(1)
  await star.stop()
})
