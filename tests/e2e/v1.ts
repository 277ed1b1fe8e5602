/**
 * A page of protocol v1, by hand from docs/spec/gateway.md sections 2 and 3: JSON
 * in text messages, responses found by their number, pushes by their method.
 */
export const v1 = `
const v1 = { got: [] }
globalThis.v1 = v1

let socket, next = 0, acks = 0
const waiting = new Map()

function request(method, params) {
  const requestid = next++
  socket.send(JSON.stringify({ requestid, method, params, isresponse: false }))
  return new Promise((resolve, reject) => waiting.set(requestid, { resolve, reject }))
}

function receive({ requestid, method, params, result, error, isresponse }) {
  if (isresponse) {
    const { resolve, reject } = waiting.get(requestid)
    waiting.delete(requestid)
    return error ? reject(new Error(error.message)) : resolve(result)
  }
  if (method === 'peerData' || method === 'topicData') v1.got.push(params)
}

v1.connect = async (protocol, topic) => {
  socket = new WebSocket((location.protocol === 'https:' ? 'wss://' : 'ws://') + location.host + '/ws')
  socket.onmessage = (event) => receive(JSON.parse(event.data))
  await new Promise((resolve, reject) => Object.assign(socket, { onopen: resolve, onerror: reject }))
  const { peerid } = await request('peer', {})
  await request('start', { protocol })
  await request('subscribe', { topic })
  return peerid
}
v1.send = (peer, protocol, data) => request('send', { peer, protocol, data, ack: acks++ })
v1.publish = (topic, data) => request('publish', { topic, data })
`
