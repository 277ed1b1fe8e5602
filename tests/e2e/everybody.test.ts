// The demo for everybody: who can't use a mouse, who listens instead of looking, who
// needs contrast, on small screens and on large ones.
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { launch, person } from './browser.js'
import { contrasts } from './contrast.js'
import { Parley } from './parley.js'

let browser: Browser
const ending: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  browser = await launch()
})
afterEach(async () => {
  for (const end of ending.splice(0).reverse()) await end().catch(() => {})
})
afterAll(() => browser.close())

async function visit(parley: Parley, name: string, options: BrowserContextOptions = {}): Promise<Page> {
  const { context } = await person(browser, name, options)
  ending.push(() => context.close())
  const page = await context.newPage()
  await page.goto(parley.link)
  await page.locator('#state[data-state=online]').waitFor({ state: 'attached' })
  return page
}

const row = (page: Page, name: string | RegExp) => page.getByRole('navigation').getByRole('button', { name })

async function say(page: Page, text: string): Promise<void> {
  await page.getByRole('textbox', { name: 'Message' }).fill(text)
  await page.keyboard.press('Enter')
}

/** Ada, and Bo who has said something to all and to her; everything there is to see is on her page. */
async function ada(options: BrowserContextOptions = {}): Promise<{ page: Page; bo: Page; parley: Parley }> {
  const parley = await Parley.start({ auth: 'none' })
  ending.push(() => parley.stop())
  const page = await visit(parley, 'Ada Lovelace', options)
  const bo = await visit(parley, 'Bo')
  await row(bo, /^Ada Lovelace/).waitFor()
  await say(bo, 'Good morning')
  await page.getByRole('log').getByText('Good morning').waitFor()
  await row(bo, /^Ada Lovelace/).click()
  await say(bo, 'Are you there?')
  await page.locator('.badge:not([hidden])').first().waitFor({ state: 'attached' })
  return { page, bo, parley }
}

const widths = { narrow: { width: 360, height: 640 }, wide: { width: 1600, height: 900 } }

describe.each(['light', 'dark'] as const)('in the %s scheme', (colorScheme) => {
  test('every text stands out: at least 4.5 to 1', async () => {
    const { page, parley } = await ada({ colorScheme })
    await page.getByText('Somebody missing?').click()
    await say(page, 'Morning, Bo')
    const shot = (name: string) => process.env.SCREENSHOTS && page.screenshot({ path: `${process.env.SCREENSHOTS}/${colorScheme}-${name}.png` })
    const look = async (what: string, least: number) => {
      await shot(what)
      const all = await contrasts(page)
      expect(all.length, what).toBeGreaterThan(least)
      expect(all.filter((c) => c.ratio < 4.5), what).toEqual([])
    }
    await look('room', 20)
    // a face has a colour of its id: all there can be
    const hues = await page.evaluate(() => [...document.querySelectorAll<HTMLElement>('.list .face')].length)
    for (let hue = 0; hue < 360; hue += 30) {
      await page.locator('.list .face').nth(hue % hues).evaluate((face, h) => face.style.setProperty('--hue', `${h}`), hue)
      expect((await contrasts(page)).filter((c) => c.ratio < 4.5), `hue ${hue}`).toEqual([])
    }
    await row(page, /^Bo/).click()
    await say(page, 'Here I am')
    await page.locator('.mine.received').waitFor()
    await look('direct', 15)
    await parley.stop('SIGKILL', { keep: true })
    await page.getByRole('alert').filter({ hasText: 'does not answer' }).waitFor()
    await say(page, 'Still?')
    await look('offline', 15)
    const again = await parley.again()
    ending.push(() => again.stop())
    await page.locator('#state[data-state=online]').waitFor({ state: 'attached' })
    // a message that failed, and a connection that is over, as the page shows them
    await page.evaluate(() => {
      document.querySelector('.mine')!.classList.replace('received', 'failed')
      document.querySelector('.mine .status')!.replaceChildren('not sent: their page is not open')
      document.getElementById('state')!.dataset.state = 'closed'
    })
    await look('failed', 15)
    const scheme = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g)!.map(Number))
    expect(scheme[0]! > 128).toBe(colorScheme === 'light')
  })
})

describe('for who listens', () => {
  test('everything to press or fill in has a name, and what happens is read out', async () => {
    const { page, bo } = await ada()
    await page.getByText('Somebody missing?').click()
    const session = await page.context().newCDPSession(page)
    const tree = async () => {
      const { nodes } = await session.send('Accessibility.getFullAXTree')
      return nodes.filter((n) => !n.ignored).map((n) => ({
        role: n.role?.value as string,
        name: (n.name?.value ?? '') as string,
        properties: Object.fromEntries((n.properties ?? []).map((p) => [p.name, p.value.value])),
      }))
    }
    const nodes = await tree()
    const of = (role: string) => nodes.filter((n) => n.role === role)
    for (const role of ['button', 'textbox', 'link', 'navigation', 'main', 'log', 'DisclosureTriangle']) {
      for (const node of of(role)) if (role !== 'main') expect(node.name, `${role} without a name`).not.toBe('')
    }
    expect(of('textbox').map((n) => n.name).sort()).toEqual(['Message', 'Their id, or their address with it', 'Your name'])
    expect(of('button').map((n) => n.name)).toEqual(expect.arrayContaining(['Send', 'Find them', expect.stringMatching(/^Bo .*1 unread$/)]))
    expect(of('main')[0]!.name).toBe('Everyone here')
    expect(of('log')).toMatchObject([{ name: 'Messages', properties: { live: 'polite' } }])
    expect(of('heading').map((n) => n.name)).toEqual(['parley', 'Everyone here'])
    expect(of('listitem').length).toBe(3) // the room, the label, Bo: none outside of a list
    expect(await page.getByRole('status').allTextContents()).toEqual(['online', '1 unread from Bo'])
    await say(bo, 'Hello?')
    await page.getByRole('status').filter({ hasText: '2 unread from Bo' }).waitFor({ state: 'attached' })
    await row(page, /^Bo .*2 unread$/).click()
    await row(page, /^Bo (?!.*unread)/).and(page.locator('[aria-current=true]')).waitFor()
    expect(await page.getByRole('status').allTextContents()).toEqual(['online', ''])
    await page.getByRole('log').and(page.locator('[aria-live=polite]')).waitFor() // what is said from now on is read out
  })

  test('on a narrow screen the way back says how many are unread', async () => {
    const { page } = await ada({ viewport: widths.narrow })
    await page.getByRole('button', { name: 'Back to all conversations, 1 unread' }).waitFor()
  })
})

/** Presses Tab until what is focused has this name. */
async function tabTo(page: Page, what: RegExp): Promise<void> {
  for (let i = 0; i < 20; i++) {
    await page.keyboard.press('Tab')
    const focused = await page.evaluate(() => {
      const e = document.activeElement as HTMLElement
      return `${e.tagName} ${e.getAttribute('aria-label') ?? ''} ${e.id} ${e.textContent}`
    })
    if (what.test(focused)) {
      const outline = await page.evaluate(() => {
        const style = getComputedStyle(document.activeElement!)
        return style.outlineStyle !== 'none' || style.borderColor === getComputedStyle(document.querySelector('.write button')!).backgroundColor
      })
      expect(outline, `${focused} can't be seen to be focused`).toBe(true)
      return
    }
  }
  throw new Error(`no Tab leads to ${what}`)
}

describe.each(['narrow', 'wide'] as const)('on a %s screen', (size) => {
  test('everything is done by keyboard: skip, write, switch, go back, find somebody, take a name', async () => {
    const { page, bo } = await ada({ viewport: widths[size] })
    const url = page.url()
    await page.evaluate(() => (document.activeElement as HTMLElement).blur())
    await tabTo(page, /skip/)
    await page.keyboard.press('Enter')
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('text')
    expect(page.url()).toBe(url) // another address would be another room
    await page.keyboard.type('Morning, Bo')
    await page.keyboard.press('Enter')
    await row(bo, /^Everyone here/).click()
    await bo.getByRole('log').getByText('Morning, Bo').waitFor()

    const toList = async () => {
      await page.evaluate(() => (document.activeElement as HTMLElement).blur())
      if (size === 'wide') return
      await tabTo(page, /Back to all/)
      await page.keyboard.press('Enter')
    }
    await toList()
    await tabTo(page, /BUTTON .*Bo.*unread/)
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: 'Bo' }).waitFor()
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('text')
    await page.keyboard.type('Here')
    await page.keyboard.press('Shift+Enter')
    await page.keyboard.type('I am')
    await page.keyboard.press('Enter')
    await page.locator('.mine.received').waitFor()

    await toList()
    await tabTo(page, /SUMMARY/)
    await page.keyboard.press('Enter')
    await tabTo(page, /INPUT {2}id/)
    await page.keyboard.type('not an id')
    await tabTo(page, /Find them/)
    await page.keyboard.press('Enter')
    await page.getByRole('alert').filter({ hasText: /invalid peer ID/ }).waitFor()
    await tabTo(page, /INPUT {2}name/)
    await page.keyboard.press('Control+a')
    await page.keyboard.type('Countess')
    await page.keyboard.press('Enter')
    await row(bo, /^Countess/).waitFor()
    if (size === 'narrow') await page.evaluate(() => (document.activeElement as HTMLElement).blur())
    await tabTo(page, /BUTTON .*Everyone here/)
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: 'Everyone here' }).waitFor()
  })

  test('nothing is wider than the screen', async () => {
    const { page, bo } = await ada({ viewport: widths[size] })
    const fits = async (what: string) => {
      if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${size}-${what}.png` })
      const wide = await page.evaluate(() => [...document.querySelectorAll('html, body, .side, .list, .chat, .head, .log, .write')]
        .filter((e) => e.scrollWidth > e.clientWidth && e.checkVisibility()).map((e) => `${e.className || e.tagName}: ${e.scrollWidth} of ${e.clientWidth}`))
      expect(wide, what).toEqual([])
    }
    await bo.getByRole('textbox', { name: 'Your name' }).fill('W'.repeat(40))
    await bo.keyboard.press('Enter')
    await row(bo, /^Everyone here/).click()
    await say(bo, 'm'.repeat(500))
    await page.getByRole('log').getByText('mmmm').waitFor()
    await fits('room')
    if (size === 'narrow') await page.getByRole('button', { name: /^Back/ }).click()
    await page.getByText('Somebody missing?').click()
    await fits('list')
    await row(page, /^WWWW/).click()
    await say(page, 'm'.repeat(500))
    await page.locator('.mine.received').waitFor()
    await fits('direct')
  })
})
