// Serves the demo with a node that is only pretended (client/test/fake.ts), to
// work on the page without a network: npm run mock -w tests/e2e. Each browser
// profile is somebody else by ?identity=NAME in the page's URL.
import { createServer } from 'node:http'
import { readFileSync } from 'node:fs'
import { extname, join } from 'node:path'
import { WebSocketServer } from 'ws'
import { FakeNode, type Wire } from '../../client/test/fake.js'

const root = process.cwd()
const types: Record<string, string> = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' }

/** Serves the demo; resolves with the port and the node. */
export async function serveMock(port = 0): Promise<{ port: number; node: FakeNode; close(): void }> {
  const node = new FakeNode()
  const server = createServer((request, response) => {
    const path = new URL(request.url!, 'http://x').pathname
    const file = path === '/parley.js' ? 'client/dist/parley.js' : join('web/demo', path === '/' ? 'index.html' : path)
    try {
      const body = readFileSync(join(root, file))
      response.writeHead(200, {
        'Content-Type': `${types[extname(file)] ?? 'application/octet-stream'}; charset=utf-8`,
        'Content-Security-Policy': "default-src 'self'; connect-src 'self' ws:",
        'Cache-Control': 'no-store',
      })
      response.end(body)
    } catch {
      response.writeHead(404).end()
    }
  })
  const sockets = new WebSocketServer({ server, path: '/ws' })
  let people = 0
  sockets.on('connection', (socket, request) => {
    if (node.down) return socket.terminate()
    const wire: Wire = {
      send: (bytes) => socket.send(bytes),
      close: (code, reason) => socket.close(code, reason),
      onmessage: () => {},
      onclose: () => {},
    }
    node.accept(wire)
    const profile = /profile=(\w+)/.exec(request.headers.cookie ?? '')?.[1] ?? `guest${++people}`
    node.defaultIdentity = profile
    socket.on('message', (data: Buffer) => {
      node.defaultIdentity = profile
      wire.onmessage(new Uint8Array(data))
    })
    socket.on('close', () => wire.onclose())
  })
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  const address = server.address() as { port: number }
  return {
    port: address.port,
    node,
    close() {
      for (const socket of sockets.clients) socket.terminate()
      server.close()
    },
  }
}
