#!/usr/bin/env node
// CommonJS, because modules are loaded by the very pool of threads whose size has to be said before it starts.
const { existsSync } = require('node:fs')
const { availableParallelism } = require('node:os')
const { join } = require('node:path')
const { pathToFileURL } = require('node:url')

/** What one shard of a node reads, writes and makes at once; as many shards as a node has by default. */
const POOL_THREADS_PER_SHARD = 4
const SHARDS_DEFAULT_MAX = 8
const poolThreads = POOL_THREADS_PER_SHARD * Math.min(SHARDS_DEFAULT_MAX, availableParallelism())
process.env.UV_THREADPOOL_SIZE ??= String(poolThreads)

const main = join(__dirname, '..', 'dist', 'main.js')
if (existsSync(main)) {
  // Nothing is worth waiting for after that: not the idle connections that libraries keep open.
  import(pathToFileURL(main).href)
    .then(({ main: run }) => run(process.argv.slice(2)))
    .then((code) => process.exit(code))
} else {
  process.stderr.write('holdfast: the checkout is not built yet: run npm run build\n')
  process.exitCode = 1
}
