// @ts-check
// The dashboard: asks status.json and shows what its panels say. Everything is
// set as text; nothing that comes from the network is ever read as HTML.

const every = 2000
const remembered = 90 // looks: three minutes

/** @type {Map<string, {at: number, value: number}[]>} */
const courses = new Map()

const panels = /** @type {HTMLElement} */ (document.getElementById('panels'))
const live = /** @type {HTMLElement} */ (document.getElementById('live'))
const what = /** @type {HTMLElement} */ (document.getElementById('what'))

/** Makes an element with text and children. */
function make(tag, className, ...children) {
  const e = document.createElement(tag)
  if (className) e.className = className
  e.append(...children.filter(c => c !== null && c !== undefined && c !== ''))
  return e
}

const sizes = [[2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB']]

function bytes(n) {
  for (const [size, name] of sizes) if (n >= size) return `${(n / size).toFixed(n / size < 10 ? 1 : 0)} ${name}`
  return `${Math.round(n)} B`
}

function number(n) {
  return n.toLocaleString('en', { maximumFractionDigits: n < 10 ? 2 : 0 })
}

function duration(s) {
  if (s < 0.001) return `${(s * 1e6).toFixed(0)} µs`
  if (s < 1) return `${(s * 1000).toFixed(s < 0.01 ? 1 : 0)} ms`
  if (s < 60) return `${Math.floor(s)} s`
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`
}

const states = new Map([
  ...['direct', 'local', 'self', 'connected', 'punch', 'yes'].map(s => /** @type {const} */ ([s, 'good'])),
  ...['relay', 'star', 'away'].map(s => /** @type {const} */ ([s, 'fair'])),
  ...['none', 'no'].map(s => /** @type {const} */ ([s, 'bad'])),
])

/** A long id, cut in the middle; a click copies the whole. */
function id(text) {
  const short = text.length > 36 ? `${text.slice(0, 12)}…${text.slice(-8)}` : text
  const b = make('button', 'id', short)
  b.type = 'button'
  b.title = `${text}\n(click to copy)`
  b.addEventListener('click', () => navigator.clipboard?.writeText(text).catch(() => {}))
  return b
}

/** Keeps a value's course and gives its rate a second, or null. */
function follow(key, value) {
  const course = courses.get(key) ?? []
  course.push({ at: performance.now(), value })
  if (course.length > remembered) course.shift()
  courses.set(key, course)
  const last = course.at(-2)
  if (!last || value < last.value) return null
  const now = course[course.length - 1]
  return ((now.value - last.value) / (now.at - last.at)) * 1000
}

function rateOf(course) {
  return course.slice(1).map((p, i) => Math.max(0, ((p.value - course[i].value) / (p.at - course[i].at)) * 1000))
}

/** Draws a course as a line from 0 to its highest. */
function trend(values) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  svg.setAttribute('class', 'trend')
  svg.setAttribute('viewBox', '0 0 100 20')
  svg.setAttribute('preserveAspectRatio', 'none')
  svg.setAttribute('aria-hidden', 'true')
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline')
  const top = Math.max(...values, 1e-9) * 1.1
  const step = 100 / Math.max(values.length - 1, 14)
  line.setAttribute('points', values.map((v, i) => `${i * step},${19 - (v / top) * 18}`).join(' '))
  svg.append(line)
  return svg
}

const growing = unit => unit === 'total' || unit === 'traffic'

/** The text or element for one value. */
function show(value, unit, rate) {
  if (value === null || value === undefined || value === '') return ''
  const behind = rate ? make('small', '', unit === 'traffic' ? `${bytes(rate)}/s` : `${number(rate)}/s`) : null
  switch (unit) {
    case 'count': return number(value)
    case 'total': return make('span', '', number(value), behind)
    case 'bytes': return bytes(value)
    case 'traffic': return make('span', '', bytes(value), behind)
    case 'seconds': return duration(value)
    case 'time': return duration(Math.max(0, (Date.now() - value) / 1000)) + ' ago'
    case 'share': {
      const m = document.createElement('meter')
      m.max = 1
      m.high = 0.9
      m.low = 0.7
      m.optimum = 0
      m.value = value
      m.title = `${(value * 100).toFixed(1)} %`
      return m
    }
    case 'name': return id(String(value))
    case 'state': return make('span', `state ${states.get(String(value)) ?? ''}`, String(value))
  }
  return typeof value === 'number' ? number(value) : String(value)
}

const right = unit => ['count', 'total', 'bytes', 'traffic', 'seconds'].includes(unit)

function fact(panel, f) {
  const key = `${panel}/${f.name}`
  const rate = typeof f.value === 'number' && (f.trend || growing(f.unit)) ? follow(key, f.value) : null
  const value = make('dd', '', show(f.value, f.unit, growing(f.unit) ? rate : null))
  if (f.trend) {
    const course = courses.get(key) ?? []
    value.append(trend(growing(f.unit) ? rateOf(course) : course.map(p => p.value)))
  }
  return make('div', '', make('dt', '', f.name), value)
}

function table(t) {
  if (t.rows.length === 0) return make('p', 'note', t.empty || 'Nothing.')
  const head = make('tr', '', ...t.columns.map(c => make('th', right(c.unit) ? 'number' : '', c.name)))
  const rows = t.rows.map(row => make('tr', '', ...row.map((v, i) => {
    const unit = t.columns[i]?.unit
    return make('td', right(unit) ? 'number' : unit === 'name' ? 'id' : unit === 'whole' ? 'id text' : unit ? '' : 'text', show(v, unit, null))
  })))
  const wide = make('div', 'wide', make('table', '', make('thead', '', head), make('tbody', '', ...rows)))
  if (t.more) wide.append(make('p', 'note', `and ${number(t.more)} more`))
  return wide
}

function section(p) {
  const s = make('section', p.table && (p.table.columns.length > 5 || p.table.columns.some(c => c.unit === 'whole')) ? 'broad' : '')
  s.id = `panel-${p.id}`
  s.append(make('h2', '', p.title))
  if (p.table?.rows.length) s.append(make('small', '', number(p.table.rows.length + (p.table.more ?? 0))))
  if (p.help) s.append(make('p', 'help', p.help))
  if (p.error) s.append(make('p', 'fault', p.error))
  if (p.facts?.length) s.append(make('dl', 'facts', ...p.facts.map(f => fact(p.id, f))))
  if (p.table) s.append(table(p.table))
  return s
}

function say(text, className) {
  if (live.textContent !== text) live.textContent = text
  live.className = className
}

function render(status) {
  document.title = status.site ? `parley: ${status.site}` : 'parley'
  what.replaceChildren(...[
    status.site ? `serves ${status.site}` : 'serves no site', ` · version ${status.version || 'unknown'} · `, status.peer ? id(status.peer) : '',
  ])
  say(status.ready ? 'live' : 'not ready', status.ready ? 'good' : 'fair')
  const wanted = new Set(status.panels.map(p => `panel-${p.id}`))
  for (const e of [...panels.children]) if (!wanted.has(e.id)) e.remove()
  status.panels.forEach((p, i) => place(section(p), i))
}

/** Puts a panel at its place, instead of the older one; focus and scrolling stay. */
function place(fresh, i) {
  const old = document.getElementById(fresh.id)
  if (!old) {
    panels.insertBefore(fresh, panels.children[i] ?? null)
    return
  }
  const focused = [...old.querySelectorAll('button')].findIndex(b => b === document.activeElement)
  const left = old.querySelector('.wide')?.scrollLeft ?? 0
  old.replaceWith(fresh)
  if (focused >= 0) fresh.querySelectorAll('button')[focused]?.focus({ preventScroll: true })
  const wide = fresh.querySelector('.wide')
  if (wide) wide.scrollLeft = left
}

async function look() {
  try {
    const answer = await fetch('status.json', { cache: 'no-store', signal: AbortSignal.timeout(10_000) })
    if (answer.status === 401) say('not let in: open the launch link that parley printed', 'bad')
    else if (!answer.ok) say(`the node answers ${answer.status}`, 'bad')
    else render(await answer.json())
  } catch {
    say('the node does not answer', 'bad')
  }
}

async function watch() {
  for (;;) {
    if (getSelection()?.toString()) say('paused while text is selected', 'fair')
    else if (!document.hidden) await look()
    await new Promise(wake => {
      setTimeout(wake, every)
      document.addEventListener('visibilitychange', wake, { once: true })
    })
  }
}

watch()
