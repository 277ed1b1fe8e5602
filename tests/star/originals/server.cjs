// The original server as a program:
//
//   node server.cjs recent|2019 ['{"port":9090,"strictMultiaddr":true,…}']
//
// The JSON holds options of the library, and `nonce`: a text that every challenge
// is, for loads with signatures made beforehand. It listens on a free port of
// 127.0.0.1 unless told, prints "Listening on: <uri>", and ends when its standard
// input does, so that it never outlives who started it.
'use strict'
const { createRequire } = require('module')
const path = require('path')

const [stack, json] = process.argv.slice(2)
const options = Object.assign({ host: '127.0.0.1', port: 0, strictMultiaddr: true }, JSON.parse(json || '{}'))
const from = createRequire(path.join(__dirname, stack, 'package.json'))

if (!options.port) process.env.PORT = '0' // the library takes port 0 for none
if (options.nonce) fixNonce(options.nonce)
delete options.nonce

// The library makes a nonce of two UUIDs.
function fixNonce (nonce) {
  const star = createRequire(from.resolve('libp2p-websocket-star-rendezvous'))
  const halves = [nonce.slice(0, nonce.length / 2), nonce.slice(nonce.length / 2)]
  const id = star.resolve('uuid')
  let next = 0
  star('uuid')
  require.cache[id].exports = () => halves[next++ % 2]
}

from('libp2p-websocket-star-rendezvous').start(options).then((server) => {
  console.log('Listening on: ' + server.info.uri)
}, (error) => {
  console.error(error)
  process.exit(2)
})
process.stdin.on('end', () => process.exit(0)).resume()
