// The original client as a program, on raw streams:
//
//   node client.cjs recent|2019
//
// It takes one command a line of standard input, as JSON:
//
//   {"do":"listen","address":…,"id":{…},"with":MODE}   id as peer-id writes it; address without the id
//   {"do":"dial","address":…,"with":MODE}
//   {"do":"serve","with":MODE}                         for the dials that come from now on
//   {"do":"answer","how":"never"|"object"|"string"}    instead of taking the dials that come
//   {"do":"drop"}                                      cuts the connection; it comes back by itself
//
// MODE is what it does on a connection, and {"event":"end",…} tells what came:
//
//   echo       sends back what comes
//   late       reads to the end, then sends "late" and ends
//   bytes:N    sends N bytes (byte i is i*7 % 256), ends, and reads to the end
//   true, string, object: sends "part" and ends so; a clean end, "went wrong", an Error
//
// It ends when its standard input does, so that it never outlives who started it.
'use strict'
const { createHash } = require('crypto')
const { createRequire } = require('module')
const path = require('path')
const readline = require('readline')

const from = createRequire(path.join(__dirname, process.argv[2], 'package.json'))
const Star = from('libp2p-websocket-star')
const PeerId = from('peer-id')
const multiaddr = from('multiaddr')
const pull = from('pull-stream')

let star, listener, serving

const say = (event, more) => console.log(JSON.stringify({ event, ...more }))

function * pattern (n) {
  for (let at = 0; at < n; at += 65536) {
    const b = Buffer.allocUnsafe(Math.min(65536, n - at))
    for (let i = 0; i < b.length; i++) b[i] = (at + i) * 7
    yield b
  }
}

// A source of what a mode sends.
function source (mode, ended) {
  const [name, size] = mode.split(':')
  if (name === 'late') return ended
  if (name === 'bytes') {
    const pieces = pattern(Number(size))
    return (abort, give) => {
      const { value, done } = pieces.next()
      give(abort || done || null, value)
    }
  }
  const end = { true: true, string: 'went wrong', object: new Error('went wrong') }[name]
  let sent = false
  return (abort, give) => {
    if (sent) return give(abort || end)
    sent = true
    give(abort, Buffer.from('part'))
  }
}

function serve (connection, mode) {
  if (mode === 'echo') return pull(connection, connection)
  const hash = createHash('sha256')
  let bytes = 0; let largest = 0; let over; let asked; let said = false
  // what "late" sends, when the other side's end has come
  const ended = (abort, give) => {
    if (abort || said) return give(true)
    asked = () => { said = true; give(null, Buffer.from('late')) }
    if (over !== undefined) asked()
  }
  pull(source(mode, ended), connection)
  pull(connection, pull.drain((chunk) => {
    hash.update(chunk)
    bytes += chunk.length
    largest = Math.max(largest, chunk.length)
  }, (error) => {
    over = error || null
    say('end', { bytes, largest, sha256: hash.digest('hex'), error: over === null ? '' : String(over) })
    if (asked) asked()
  }))
}

// What the listener does with a dial, instead of taking it.
const refusals = { never: () => {}, object: (answer) => answer({}), string: (answer) => answer('not today') }

const commands = {
  listen ({ address, id, with: mode }) {
    serving = mode
    PeerId.createFromJSON(id, (error, peerId) => {
      if (error) return say('error', { error: String(error) })
      star = new Star({ id: peerId })
      star.discovery.on('peer', (info) => say('peer', { address: info.multiaddrs.toArray()[0].toString() }))
      listener = star.createListener((connection) => serve(connection, serving))
      listener.on('error', (error) => say('error', { error: String(error) }))
      const at = `${address}/ipfs/${peerId.toB58String()}`
      listener.listen(multiaddr(at), (error) => say(error ? 'error' : 'listening', { address: at, error: String(error || '') }))
    })
  },
  dial ({ address, with: mode }) {
    star.dial(multiaddr(address), (error, connection) => {
      if (error) return say('error', { error: String(error) })
      say('dialled', {})
      serve(connection, mode)
    })
  },
  serve ({ with: mode }) {
    serving = mode
    say('serving', {})
  },
  answer ({ how }) {
    listener.io.removeAllListeners('ss-incomming')
    listener.io.on('ss-incomming', (id, from, answer) => refusals[how](answer))
    say('answering', {})
  },
  drop () {
    listener.io.io.engine.transport.ws.terminate()
  }
}

readline.createInterface({ input: process.stdin })
  .on('line', (line) => { const command = JSON.parse(line); commands[command.do](command) })
  .on('close', () => process.exit(0))
