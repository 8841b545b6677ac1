/** `npm start`: set-up, then one node with everything in it. */
import { spawn, spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const setup = spawnSync(process.execPath, [join(root, 'scripts', 'setup.mjs')], { stdio: ['ignore', 'inherit', 'inherit'] })
if (setup.status !== 0) process.exit(1)
const program = join(root, 'packages', 'cli', 'bin', 'holdfast.js')
// As the service does (docs/decisions/0027-code-on-large-pages.md, 0028-numbers-that-stay-wide.md, 0035-compiled-code-outlives-a-lull.md).
const runtime = ['--use-largepages=silent', '--min-semi-space-size=16', '--no-memory-reducer']
const child = spawn(process.execPath, [...runtime, program, 'up', ...process.argv.slice(2)], { stdio: 'inherit' })
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
child.on('exit', (code, signal) => process.exit(code ?? (signal === null ? 1 : 0)))
