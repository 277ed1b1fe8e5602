// Firefox, driven by what it speaks itself: WebDriver BiDi, JSON over a
// WebSocket (w3c.github.io/webdriver-bidi). Chromium has Playwright.
import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createRequire } from 'node:module'

/** As much of a WebSocket as this needs. */
interface Socket {
  send(text: string): void
  onopen(): void
  onclose(): void
  onmessage(message: { data: string }): void
}
const Ws = createRequire(import.meta.url)('ws') as new (url: string) => Socket

/** The system's Firefox: FIREFOX names another. */
const executablePath = process.env.FIREFOX ?? ['/usr/bin/firefox-esr', '/usr/bin/firefox'].find(existsSync) ?? 'firefox'

/** It is to call nobody but the pages of the test. */
const quiet = ['app.update.enabled', 'browser.safebrowsing.malware.enabled', 'browser.safebrowsing.phishing.enabled', 'datareporting.policy.dataSubmissionEnabled', 'extensions.update.enabled', 'network.captive-portal-service.enabled', 'network.connectivity-service.enabled']

interface Waiting {
  resolve(result: any): void
  reject(error: Error): void
}

/** Where an answer or an event came from is told by its fields. */
interface Incoming {
  id?: number
  type: 'success' | 'error' | 'event'
  result?: unknown
  message?: string
  method?: string
  params?: any
}

export class Firefox {
  readonly #process: ChildProcess
  readonly #profile: string
  readonly #ended: Promise<void>
  readonly #waiting = new Map<number, Waiting>()
  readonly #errors = new Map<string, string[]>()
  #socket!: Socket
  #id = 0

  private constructor() {
    this.#profile = mkdtempSync(join(tmpdir(), 'parley-firefox-'))
    writeFileSync(join(this.#profile, 'user.js'), quiet.map((name) => `user_pref("${name}", false);\n`).join(''))
    const args = ['--headless', '--no-remote', '--remote-debugging-port=0', '--profile', this.#profile]
    this.#process = spawn(executablePath, args, { env: { ...process.env, HOME: this.#profile }, stdio: ['ignore', 'ignore', 'pipe'] })
    this.#ended = new Promise((resolve) => this.#process.once('close', () => resolve()))
  }

  static async launch(): Promise<Firefox> {
    const firefox = new Firefox()
    await firefox.#connect(await firefox.#listening())
    await firefox.call('session.new', { capabilities: {} })
    await firefox.call('session.subscribe', { events: ['log.entryAdded'] })
    return firefox
  }

  /** A tab with cookies and storage of its own. */
  async person(url: string): Promise<Tab> {
    const { userContext } = await this.call('browser.createUserContext', {})
    return this.tab(url, userContext)
  }

  /** A tab beside others of the same person. */
  async tab(url: string, userContext: string): Promise<Tab> {
    const { context } = await this.call('browsingContext.create', { type: 'window', userContext })
    const errors: string[] = []
    this.#errors.set(context, errors)
    await this.call('browsingContext.navigate', { context, url, wait: 'complete' })
    return new Tab(this, context, userContext, errors)
  }

  /** One command; rejects with what Firefox says is wrong. */
  call(method: string, params: object): Promise<any> {
    return new Promise((resolve, reject) => {
      const id = ++this.#id
      this.#waiting.set(id, { resolve, reject })
      this.#socket.send(JSON.stringify({ id, method, params }))
    })
  }

  async close(): Promise<void> {
    await this.call('browser.close', {}).catch(() => {})
    this.#process.kill()
    await this.#ended
    rmSync(this.#profile, { recursive: true, force: true })
  }

  /** The address that it prints. */
  #listening(): Promise<string> {
    return new Promise((resolve, reject) => {
      let output = ''
      this.#process.stderr!.on('data', (chunk) => {
        output += chunk
        const [, url] = /BiDi listening on (ws:\S+)/.exec(output) ?? []
        if (url) resolve(url)
      })
      void this.#ended.then(() => reject(new Error(`Firefox ended:\n${output}`)))
    })
  }

  #connect(url: string): Promise<void> {
    const socket = new Ws(`${url}/session`)
    this.#socket = socket
    socket.onmessage = ({ data }) => this.#take(JSON.parse(data))
    return new Promise((resolve, reject) => {
      socket.onopen = () => resolve()
      socket.onclose = () => {
        const gone = new Error('Firefox closed')
        reject(gone)
        for (const waiting of this.#waiting.values()) waiting.reject(gone)
      }
    })
  }

  #take({ id, type, result, message, method, params }: Incoming): void {
    if (method === 'log.entryAdded' && params.level === 'error') this.#errors.get(params.source.context)?.push(params.text)
    const waiting = this.#waiting.get(id ?? 0)
    if (!waiting) return
    this.#waiting.delete(id!)
    if (type === 'success') waiting.resolve(result)
    else waiting.reject(new Error(message))
  }
}

/** A page as the test acts on it. */
export class Tab {
  constructor(
    readonly firefox: Firefox,
    readonly context: string,
    readonly userContext: string,
    /** What the page wrote to its console as errors. */
    readonly errors: string[],
  ) {}

  /** Calls fn in the page, with arguments and a result as JSON has them. */
  async run<A extends unknown[], R>(fn: (...args: A) => R, ...args: A): Promise<Awaited<R>> {
    const answer = await this.firefox.call('script.callFunction', {
      functionDeclaration: `async (args) => JSON.stringify((await (${fn})(...JSON.parse(args))) ?? null)`,
      arguments: [{ type: 'string', value: JSON.stringify(args) }],
      target: { context: this.context },
      awaitPromise: true,
    })
    if (answer.type === 'exception') throw new Error(answer.exceptionDetails.text)
    return JSON.parse(answer.result.value)
  }

  /** Waits until fn is true in the page. */
  async until<A extends unknown[]>(fn: (...args: A) => unknown, ...args: A): Promise<void> {
    while (!(await this.run(fn, ...args))) await new Promise((resolve) => setTimeout(resolve, 30))
  }

  /** Focuses what the selector finds and types; "\n" is the Enter key. */
  async type(selector: string, text: string): Promise<void> {
    await this.firefox.call('browsingContext.activate', { context: this.context })
    await this.run((selector) => {
      const field = document.querySelector<HTMLInputElement>(selector)!
      field.focus()
      field.select()
    }, selector)
    const actions = [...text].flatMap((c) => ['keyDown', 'keyUp'].map((type) => ({ type, value: c === '\n' ? '\uE007' : c })))
    await this.firefox.call('input.performActions', { context: this.context, actions: [{ type: 'key', id: 'keys', actions }] })
  }

  reload(): Promise<unknown> {
    return this.firefox.call('browsingContext.reload', { context: this.context, wait: 'complete' })
  }

  async screenshot(path: string): Promise<void> {
    const { data } = await this.firefox.call('browsingContext.captureScreenshot', { context: this.context })
    writeFileSync(path, Buffer.from(data, 'base64'))
  }
}
