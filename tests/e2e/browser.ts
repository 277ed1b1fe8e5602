import { existsSync } from 'node:fs'
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core'

/** The system's Chromium: CHROMIUM names another. */
const executablePath = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync) ?? 'chromium'

const quiet = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']

export function launch(args: string[] = []): Promise<Browser> {
  return chromium.launch({ executablePath, timeout: 120_000, args: [...quiet, ...args] })
}

/** A person's browser: cookies and storage of its own. What goes wrong in its pages is collected. */
export async function person(browser: Browser, name = '', options: Parameters<Browser['newContext']>[0] = {}): Promise<{ context: BrowserContext; errors: string[] }> {
  const context = await browser.newContext({ viewport: { width: 1200, height: 760 }, ...options })
  context.setDefaultTimeout(60_000) // a wait is over when what it waits for is there; this is for a slow machine
  const errors: string[] = []
  context.on('weberror', (e) => errors.push(String(e.error())))
  context.on('console', (m) => m.type() === 'error' && errors.push(m.text()))
  if (name) await context.addInitScript((n) => location.protocol === 'http:' && (localStorage.name ??= n), name)
  // Lets a test lose the page's connection as a network would.
  await context.addInitScript(() => {
    const Native = globalThis.WebSocket
    const sockets: WebSocket[] = []
    globalThis.WebSocket = class extends Native {
      constructor(url: string | URL, protocols?: string | string[]) {
        super(url, protocols)
        sockets.push(this)
      }
    }
    Object.assign(globalThis, { loseConnection: () => sockets.at(-1)?.close(4000, 'lost') })
  })
  return { context, errors }
}

export function loseConnection(page: Page): Promise<void> {
  return page.evaluate(() => (globalThis as any).loseConnection())
}
