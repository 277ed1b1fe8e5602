// Row 9 of the abuse table: Chrome asks the person before a page of a public site
// may reach this machine.
import { readFileSync } from 'node:fs'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { launch } from './browser.js'
import { Parley } from './parley.js'

const secure = 'http://app.example' // Chromium is told to take it for https
const plain = 'http://plain.example'
const client = readFileSync(new URL('../../client/dist/parley.js', import.meta.url), 'utf8')
const html = `<!doctype html><script type="module">import * as parley from '/parley.js'; globalThis.parley = parley</script>`

let browser: Browser
let parley: Parley

beforeAll(async () => {
  browser = await launch([`--unsafely-treat-insecure-origin-as-secure=${secure}`])
  parley = await Parley.start({ auth: 'none', args: ['--set', `websocket.allowedOrigins=${secure}`] })
})
afterAll(async () => {
  await browser.close()
  await parley.stop()
})

/** What becomes of a public page's connect, with the person's answer to the browser. */
async function connectFrom(origin: string, answer?: 'granted' | 'denied'): Promise<string> {
  const context = await browser.newContext()
  try {
    await context.route('**/*', (route) =>
      route.request().url().endsWith('/parley.js')
        ? route.fulfill({ body: client, contentType: 'text/javascript' })
        : route.fulfill({ body: html, contentType: 'text/html' }),
    )
    const page = await context.newPage()
    await page.goto(origin)
    await page.waitForFunction(() => 'parley' in globalThis, undefined, { polling: 50 })
    if (answer) {
      const { targetInfo } = await (await context.newCDPSession(page)).send('Target.getTargetInfo')
      const session = await browser.newBrowserCDPSession()
      for (const name of ['local-network-access', 'loopback-network']) {
        const { browserContextId } = targetInfo
        await session.send('Browser.setPermission', { permission: { name }, setting: answer, origin, ...(browserContextId && { browserContextId }) }).catch(() => {}) // one of the two names, by version
      }
    }
    return await page.evaluate(
      (url) => (globalThis as any).parley.connect({ url }).then(() => 'connected', (e: any) => `${e.code}: ${e.message}`),
      parley.url,
    )
  } finally {
    await context.close()
  }
}

describe('local network access', () => {
  test('abuse 9: accepted: the page connects', async () => {
    expect(await connectFrom(secure, 'granted')).toBe('connected')
  })

  test('abuse 9: denied: a clear error', async () => {
    expect(await connectFrom(secure, 'denied')).toMatch(/^network-blocked: .*allow it to use the local network/)
  })

  test('abuse 9: a page over http: a clear error', async () => {
    expect(await connectFrom(plain)).toMatch(/^network-blocked: .*only pages over https/)
  })

  test('abuse 9: accepted, but the node does not know the page: refused, and not called blocked', async () => {
    const other = await Parley.start({ auth: 'none' })
    const keep = parley
    try {
      parley = other
      expect(await connectFrom(secure, 'granted')).toMatch(/^(unreachable|forbidden):/)
    } finally {
      parley = keep
      await other.stop()
    }
  })
})
