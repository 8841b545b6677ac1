#!/usr/bin/env node
import { existsSync } from 'node:fs'

const main = new URL('../dist/main.js', import.meta.url)
if (existsSync(main)) {
  const { main: run } = await import(main.href)
  // Nothing is worth waiting for after that: not the idle connections that libraries keep open.
  process.exit(await run(process.argv.slice(2)))
} else {
  process.stderr.write('holdfast: the checkout is not built yet: run npm run build\n')
  process.exitCode = 1
}
