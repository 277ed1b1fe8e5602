import { serveMock } from './mock.js'

process.chdir(new URL('../..', import.meta.url).pathname)
const { port } = await serveMock(Number(process.env.PORT ?? 8080))
console.log(`http://127.0.0.1:${port}/ serves the demo with a node in memory; the cookie profile=NAME makes you NAME`)
