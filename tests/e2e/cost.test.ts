// What pages cost a node, as its operator sees it: the process of a real node,
// measured from outside. Linux alone tells it.
import { readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connect, type ParleyNode, type SocketConstructor } from '../../client/src/index.js'
import { Parley } from './parley.js'

const WebSocket = createRequire(import.meta.url)('ws') as SocketConstructor

let parley: Parley
const pages: ParleyNode[] = []

beforeAll(async () => {
  parley = await Parley.start()
})
afterAll(async () => {
  await Promise.all(pages.map((p) => p.close()))
  await parley.stop()
})

const proc = (file: string) => `/proc/${parley.pid}/${file}`
const rssMB = () => Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(proc('status'), 'utf8'))![1]) / 1000
const descriptors = () => readdirSync(proc('fd')).length
/** Processor time until now, in seconds: user and system, in ticks of 10 ms. */
const used = () => {
  const fields = readFileSync(proc('stat'), 'utf8').split(') ')[1]!.split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}

describe.runIf(process.platform === 'linux')('fifty pages', () => {
  test('take less than 100 MB and 300 descriptors, and idle at less than 2 % of a core (G-R6)', async () => {
    for (let i = 0; i < 50; i++) pages.push(await connect({ url: parley.url, token: () => parley.token, identity: `page.${i}`, WebSocket }))
    await Promise.all(pages.map((p) => p.start('echo', ({ data }) => data)))
    const rooms = pages.map((p) => p.subscribe('room'))
    await Promise.all(rooms.map((room) => room.ready))
    for (const [i, page] of pages.entries()) expect(await page.request(pages[(i + 1) % 50]!.peer, 'echo', i)).toBe(i)
    await pages[0]!.publish('room', 'hello')

    await sleep(5000) // what the work left is put away
    const [before, began] = [used(), Date.now()]
    await sleep(10_000)
    const share = (used() - before) / ((Date.now() - began) / 1000)
    expect(share).toBeLessThan(0.02)
    expect(rssMB()).toBeLessThan(100)
    expect(descriptors()).toBeLessThan(300)
  })
})
