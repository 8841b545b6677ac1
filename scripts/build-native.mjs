/** Builds the native addon when a source is newer than what was built. */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const native = join(root, 'native')
const built = join(native, 'build', 'Release', 'holdfast.node')

function newestSource() {
  const sources = readdirSync(join(native, 'src')).map((name) => join(native, 'src', name))
  return Math.max(...[...sources, join(native, 'binding.gyp')].map((path) => statSync(path).mtimeMs))
}

if (!existsSync(built) || statSync(built).mtimeMs < newestSource()) {
  const gyp = join(root, 'node_modules', 'node-gyp', 'bin', 'node-gyp.js')
  // Node's own headers, where they are installed beside it; node-gyp fetches them otherwise.
  const prefix = dirname(dirname(process.execPath))
  const hasHeaders = existsSync(join(prefix, 'include', 'node', 'node_api.h'))
  const nodeDir = hasHeaders ? [`--nodedir=${prefix}`] : []
  const result = spawnSync(process.execPath, [gyp, 'rebuild', '--directory', native, ...nodeDir], {
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
  })
  if (result.status !== 0) {
    process.stderr.write(`${result.stdout}${result.stderr}\n`)
    process.stderr.write('the native addon could not be built: it needs python3, make and g++\n')
    process.exit(1)
  }
}
