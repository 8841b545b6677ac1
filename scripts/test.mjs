/** `npm test`: set-up, static checks, every test; the last line counts them. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const bin = (name) => join(root, 'node_modules', '.bin', name)

function run(title, command, args) {
  process.stdout.write(`\n== ${title}\n`)
  const { status } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  return status === 0
}

const prepared =
  run('set-up', process.execPath, [join(root, 'scripts', 'setup.mjs'), '--test']) &&
  run('dependency direction', bin('depcruise'), ['--config', '.dependency-cruiser.cjs', 'packages'])
if (!prepared) process.exit(1)

const folder = mkdtempSync(join(tmpdir(), 'holdfast-test-'))
const report = join(folder, 'report.json')
const passedAll = run('tests', bin('vitest'), [
  'run',
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${report}`,
  ...process.argv.slice(2),
])
let counts = { numPassedTests: 0, numFailedTests: 0, numPendingTests: 0 }
try {
  counts = JSON.parse(readFileSync(report, 'utf8'))
} catch {
  process.stdout.write('the test runner left no report\n')
}
rmSync(folder, { recursive: true, force: true })
const { numPassedTests, numFailedTests, numPendingTests } = counts
process.stdout.write(`\n${numPassedTests} passed, ${numFailedTests} failed, ${numPendingTests} skipped\n`)
process.exit(passedAll && numPassedTests > 0 ? 0 : 1)
