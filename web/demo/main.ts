// A chat room without a server. This page is a peer of its own; its node, the
// program that served it, does the networking. What to look at:
//
//   1. connect       one call gives the page its peer, the same one at every visit
//   2. the room      subscribe: who is here, what they say of themselves, what is published
//   3. one to one    send: resolves when the other page has handled it
//   4. the truth     events: is the node there, how is a peer reached
//
// The rest shows it. Text from others only ever becomes textContent.
import { connect, type Member, type ParleyError, type ParleyNode, type PathInfo, type Room, type StateChange } from '/parley.js'

interface Said { text: string; tab?: string }
interface Self { name: string }

/** A message as it is shown. `status` is that of an own one on its way. */
interface Line {
  from: string
  text: string
  at: Date
  status?: string
  failed?: boolean
  item?: HTMLElement
}

/** The room, or one person; a person who left keeps what was said. */
interface Conversation {
  id: string
  lines: Line[]
  unread: number
  draft: string
}

const everyone = 'everyone'
const tab = Math.random().toString(36).slice(2)
const roomName = decodeURIComponent(location.hash.slice(1)).slice(0, 64) || 'lobby' // …/#tea is another room
let node: ParleyNode
let room: Room<Said, Self>
let current = everyone
const conversations = new Map<string, Conversation>()
const names = new Map<string, string>() // of everybody who was ever here
const paths = new Map<string, PathInfo>()
const items = new Map<string, HTMLElement>() // of the list, which stay the same: who is about to press one presses it still

// ── 1. connect ──

async function begin(): Promise<void> {
  try {
    // Each browser is somebody of its own; its tabs are one.
    node = await connect({ identity: (localStorage.identity ??= Math.random().toString(36).slice(2, 12)) })
  } catch (error) {
    return showBroken(error as ParleyError)
  }
  $('mine').textContent = node.peer
  $<HTMLInputElement>('name').value = myName()
  conversation(everyone)

  // ── 2. the room ──

  room = node.subscribe<Said, Self>(`demo/${roomName}`, { state: { name: myName() } })
  room.on('message', ({ from, data }) => take(everyone, from, data))
  for (const event of ['join', 'leave', 'change'] as const) room.on(event, met)
  room.on('leave', ({ peer }) => paths.delete(peer))
  room.on('lost', ({ count }) => note(`${count} messages were too many for this page and are missing`))

  // ── 3. one to one ──

  await node.start<Said>('demo/chat', ({ from, data }) => take(from, from, data))

  // ── 4. the truth ──

  node.on('state', showState)
  node.on('path', reached)
  showState({ state: node.state })
  open(everyone)
}

/** Sends what was written: to all by publishing, to one by sending. */
async function say(to: string, line: Line): Promise<void> {
  line.failed = false
  setStatus(line, node.state === 'online' ? 'on its way' : 'waits for your node')
  try {
    const data: Said = { text: line.text }
    if (to === everyone) await room.publish({ ...data, tab })
    else {
      const level = await node.send(to, 'demo/chat', data)
      return setStatus(line, level === 'handled' ? 'received' : level)
    }
    setStatus(line, '')
  } catch (error) {
    line.failed = true
    setStatus(line, why(error as ParleyError))
  }
}

/** Somebody said something. It came from outside: it may be anything. */
function take(id: string, from: string, data: Said): void {
  if (from === node.peer && data?.tab === tab) return // shown when it was written
  if (typeof data?.text !== 'string' || !data.text.trim()) throw new Error('a message needs a text')
  add(id, { from, text: data.text.slice(0, 4000), at: new Date() })
}

/** Somebody came, went, or changed the name. */
function met({ peer, state }: Member<Self>): void {
  names.set(peer, clean(state?.name) || nickname(peer))
  if (room.members.has(peer) && !paths.has(peer)) void look(peer)
  reached(undefined)
}

/** Asks how somebody is reached. */
async function look(peer: string): Promise<void> {
  reached(await node.path(peer).catch(() => undefined))
}

function reached(info: PathInfo | undefined): void {
  if (info) paths.set(info.peer, info)
  showList()
  showHead()
}

function why(error: ParleyError): string {
  switch (error.code) {
    case 'unreachable': return 'not sent: no way to them was found'
    case 'not-started': return 'not sent: their page is not open'
    case 'timeout': return 'may not have arrived: no answer in time'
    case 'session-lost': return 'may not have arrived: the connection was away too long'
    default: return `not sent: ${error.message}`
  }
}

// ── names ──

function myName(): string {
  return clean(localStorage.getItem('name')) || nickname(node.peer)
}

function rename(): void {
  localStorage.setItem('name', clean($<HTMLInputElement>('name').value))
  $<HTMLInputElement>('name').value = myName()
  room.state = { name: myName() }
  showMe()
}

function nameOf(peer: string): string {
  if (peer === everyone) return roomName === 'lobby' ? 'Everyone here' : `Everyone in ${roomName}`
  return peer === node.peer ? myName() : names.get(peer) ?? nickname(peer)
}

/** A name as it may be shown: one line, nothing invisible that turns text around. */
function clean(name: unknown): string {
  return typeof name === 'string' ? name.replace(/[\p{C}\s]+/gu, ' ').trim().slice(0, 40) : ''
}

const colours = ['Amber', 'Blue', 'Copper', 'Golden', 'Green', 'Grey', 'Ivory', 'Rose', 'Ruby', 'Sand', 'Silver', 'Teal']
const animals = ['Badger', 'Crane', 'Finch', 'Fox', 'Hare', 'Heron', 'Ibex', 'Lynx', 'Otter', 'Owl', 'Raven', 'Seal', 'Wren']

/** A name for who has none, always the same for one id. */
function nickname(peer: string): string {
  const n = number(peer)
  return `${colours[n % colours.length]} ${animals[(n >>> 8) % animals.length]}`
}

function number(text: string): number {
  let n = 0
  for (const c of text) n = (Math.imul(n, 31) + c.charCodeAt(0)) >>> 0
  return n
}

// ── conversations ──

function conversation(id: string): Conversation {
  let c = conversations.get(id)
  if (!c) conversations.set(id, (c = { id, lines: [], unread: 0, draft: '' }))
  return c
}

function open(id: string): void {
  conversation(current).draft = $<HTMLTextAreaElement>('text').value
  current = id
  const c = conversation(id)
  c.unread = 0
  $('news').textContent = ''
  $<HTMLTextAreaElement>('text').value = c.draft
  document.body.dataset.view = 'chat'
  $('log').setAttribute('aria-live', 'off') // what was said before is there to read, not to be read out
  $('log').replaceChildren()
  for (const [i, line] of c.lines.entries()) show(line, c.lines[i - 1])
  if (!c.lines.length) $('log').append(h('div', { class: 'empty' }, ...emptiness(id)))
  requestAnimationFrame(() => $('log').setAttribute('aria-live', 'polite'))
  grow()
  if (id !== everyone) void look(id)
  showList()
  showHead()
  $(matchMedia('(pointer: fine)').matches ? 'text' : 'log').focus() // no keyboard that covers half of a phone
}

function emptiness(id: string): HTMLElement[] {
  if (id !== everyone) return [h('b', {}, `You and ${nameOf(id)}`), h('span', {}, 'What you write here goes to their page alone, encrypted on the way.')]
  return [h('b', {}, 'Nothing said yet'), h('span', {}, 'Open the link that parley printed in another browser, or run parley on a computer nearby: you will meet here.')]
}

function add(id: string, line: Line): void {
  const c = conversation(id)
  const before = c.lines.at(-1)
  c.lines.push(line)
  if (c.lines.length > 500) c.lines.shift()
  if (id === current) {
    if (!before) $('log').replaceChildren()
    show(line, before)
  }
  if (line.from !== node.peer && (id !== current || document.hidden || document.body.dataset.view !== 'chat')) {
    c.unread++
    $('news').textContent = `${c.unread} unread from ${nameOf(id)}` // read out; a message in the open conversation is itself
  }
  showList()
  showHead()
}

function note(text: string): void {
  $('log').append(h('p', { class: 'note' }, text))
}

// ── showing ──

function show(line: Line, before: Line | undefined): void {
  const log = $('log')
  const follow = atEnd()
  const mine = line.from === node.peer
  const follows = before?.from === line.from && +line.at - +before.at < 300_000
  const time = line.at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
  line.item = h('div', { class: `line${mine ? ' mine' : ''}${follows ? ' follows' : ''}` },
    face(line.from),
    h('p', { class: 'by' }, h('span', mine ? { class: 'hidden' } : {}, mine ? 'You' : nameOf(line.from)), h('time', { datetime: line.at.toISOString() }, time)),
    h('p', { class: 'text' }, line.text),
    h('p', { class: 'status' }))
  log.append(line.item)
  setStatus(line, line.status ?? '')
  if (follow || mine) toEnd()
}

const atEnd = (): boolean => $('log').scrollHeight - $('log').scrollTop - $('log').clientHeight < 80
const toEnd = (): void => void ($('log').scrollTop = $('log').scrollHeight)

function setStatus(line: Line, status: string): void {
  line.status = status
  const place = line.item?.querySelector('.status')
  if (!place) return
  const follow = atEnd()
  place.replaceChildren(status)
  line.item!.classList.toggle('failed', !!line.failed)
  line.item!.classList.toggle('received', status === 'received')
  if (line.failed) {
    const again = h('button', { type: 'button' }, 'Try again')
    const to = current
    again.onclick = () => void say(to, line)
    place.append(' ', again)
  }
  if (follow) toEnd()
}

function showList(): void {
  const here = [...room.members.keys()].sort((a, b) => nameOf(a).localeCompare(nameOf(b)))
  const gone = [...conversations.values()].filter((c) => c.id !== everyone && !room.members.has(c.id)).map((c) => c.id)
  const list = $('list')
  const focused = document.activeElement as HTMLElement | null
  const now = [
    row(everyone, node.state === 'online' ? `${here.length + 1} here` : 'not connected'),
    label(node.state !== 'online' ? 'Here when last heard of' : here.length ? 'People here' : 'Nobody else is here'),
    ...here.map((peer) => row(peer, describe(peer))),
    ...(gone.length ? [label('Not here now'), ...gone.map((peer) => row(peer, 'left'))] : []),
  ]
  for (const old of [...list.children]) if (!now.includes(old as HTMLElement)) old.remove()
  for (const [i, item] of now.entries()) if (item !== list.children[i]) list.insertBefore(item, list.children[i] ?? null)
  if (list.contains(focused)) focused!.focus() // which a move takes away
  showUnread()
}

function row(id: string, about: string): HTMLElement {
  const { unread } = conversations.get(id) ?? { unread: 0 }
  const item = kept(id, () => h('li', {}, h('button', { type: 'button' })))
  const button = item.firstElementChild as HTMLElement
  button.setAttribute('aria-current', String(id === current))
  button.onclick = () => open(id)
  button.replaceChildren(face(id), h('b', {}, nameOf(id)), h('small', {}, about))
  if (unread) button.append(h('span', { class: 'badge' }, `${unread}`, h('span', { class: 'hidden' }, ' unread')))
  return item
}

const label = (text: string): HTMLElement => kept(`label ${text}`, () => h('li', { class: 'label' }, text))

function kept(key: string, make: () => HTMLElement): HTMLElement {
  if (!items.has(key)) items.set(key, make())
  return items.get(key)!
}

/** How somebody is reached, in a few words. */
function describe(peer: string): string {
  const info = paths.get(peer)
  if (node.state !== 'online') return 'not known while you are offline'
  if (!info || (info.path === 'none' && !info.tried.length)) return 'here' // nobody needed a way to them yet
  const words = { self: 'you', local: 'on this node', direct: 'direct', punch: 'direct, through NAT', relay: 'through a relay', star: 'through a star', none: 'not reached' }
  const rtt = info.rtt ? `, ${info.rtt < 10 ? info.rtt.toFixed(1) : Math.round(info.rtt)} ms` : ''
  return (words[info.path] ?? info.path) + rtt
}

function showHead(): void {
  $('title').textContent = nameOf(current)
  const people = room.members.size
  if (current === everyone) {
    if (node.state !== 'online') $('about').textContent = 'Not connected'
    else $('about').textContent = people ? `You and ${people} ${people === 1 ? 'other' : 'others'}` : 'Only you, so far'
    return
  }
  const info = paths.get(current)
  const failed = info?.path === 'none' && node.state === 'online' ? info.tried.at(-1)?.error : undefined
  $('about').textContent = (room.members.has(current) ? describe(current) : 'not here now') + (failed ? `: ${failed}` : '')
  $('about').title = `${current}\n${info?.address ?? ''}`
}

function showUnread(): void {
  let all = 0
  for (const c of conversations.values()) all += c.unread
  document.title = all ? `(${all}) parley` : 'parley'
  $('others').hidden = !all
  $('others').textContent = `${all}`
  $('back').setAttribute('aria-label', `Back to all conversations${all ? `, ${all} unread` : ''}`)
}

const showMe = (): void => $('face').replaceWith(Object.assign(face(node.peer), { id: 'face' }))

/** Says what is so: online only while the node answers. */
function showState({ state, error, resumed }: StateChange): void {
  $('state').textContent = $('state').dataset.state = state
  const banner = $('banner')
  banner.hidden = state === 'online'
  if (state === 'offline') {
    const text = error?.code === 'unauthorized'
      ? 'Your node was started anew: open the link that it printed.'
      : 'Your node does not answer. What you write waits, and goes out when it does.'
    if (banner.textContent !== text) banner.textContent = text // an alert is read out at every change
  } else if (state === 'closed') showBroken(error)
  if (resumed === false) note('The connection was away for a while: some messages may be missing.')
  showMe()
  showList()
  showHead()
}

function showBroken(error: ParleyError | undefined): void {
  $('state').textContent = $('state').dataset.state = 'closed'
  $('banner').hidden = false
  $('banner').textContent = `No connection: ${error?.message ?? 'the node ended it'}.`
  $<HTMLTextAreaElement>('text').disabled = true
}

/** The round sign of somebody: the first letters, on a colour of the id. */
function face(id: string): HTMLElement {
  const letters = id === everyone ? '#' : nameOf(id).split(' ').map((word) => [...word][0]).join('').slice(0, 2)
  const element = h('span', { class: 'face', 'aria-hidden': 'true' }, letters)
  element.style.setProperty('--hue', `${id === everyone ? 168 : number(id) % 360}`)
  return element
}

/** The message box is as high as what is written in it, up to a limit. */
function grow(): void {
  const text = $('text')
  text.style.height = 'auto'
  const border = text.offsetHeight - text.clientHeight // else it is 2 px too low, and Firefox shows a scroll bar
  text.style.height = `${Math.min(text.scrollHeight + border, 160)}px`
}

function $<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T
}

/** Makes an element. Children that are text stay text, whatever is in them. */
function h(tag: string, attributes: Record<string, string>, ...children: (Node | string)[]): HTMLElement {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}

// ── what the person does ──

$('write').onsubmit = (event) => {
  event.preventDefault()
  const text = $<HTMLTextAreaElement>('text')
  if (!text.value.trim() || !node) return
  const line: Line = { from: node.peer, text: text.value.trim(), at: new Date() }
  text.value = ''
  grow()
  add(current, line)
  void say(current, line)
}

$('text').oninput = grow
$('text').onkeydown = (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
  event.preventDefault()
  $<HTMLFormElement>('write').requestSubmit()
}

$('me').onsubmit = (event) => {
  event.preventDefault()
  $('name').blur()
  $('text').focus()
}
$('name').onchange = () => node && rename()

$('add').onsubmit = (event) => {
  event.preventDefault()
  const given = $<HTMLInputElement>('id').value.trim()
  const id = given.split('/').at(-1)! // an address ends in the id
  $('fault').textContent = ''
  node.addPeers([id], given.includes('/') ? { addresses: [given] } : {}).then(() => open(id), (error: ParleyError) => ($('fault').textContent = error.message))
}
$('copy').onclick = () => navigator.clipboard.writeText(node.peer).then(() => ($('copy').textContent = 'Copied'))

$('skip').onclick = (event) => {
  event.preventDefault() // the address names the room
  $('text').focus()
}

$('back').onclick = () => {
  document.body.dataset.view = 'list'
  $('list').querySelector<HTMLElement>('[aria-current=true]')?.focus()
}

document.onvisibilitychange = () => {
  if (document.hidden || document.body.dataset.view !== 'chat' || !node) return
  conversation(current).unread = 0
  $('news').textContent = ''
  showList()
}
addEventListener('hashchange', () => location.reload())

void begin()
