import { readFileSync } from 'node:fs'
import { transformSync } from 'esbuild'

/** A client of protocol v1 as the files of a site: what v1client.ts says, without its types. */
export const v1 = {
  'client.js': transformSync(readFileSync(new URL('./v1client.ts', import.meta.url), 'utf8'), { loader: 'ts', target: 'es2022' }).code,
}
