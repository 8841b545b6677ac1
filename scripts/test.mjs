/** `npm test`: set-up, static checks, every test; the last line counts them. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
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
  run('types of the tests', bin('tsc'), ['-p', 'tsconfig.tests.json']) &&
  run('dependency direction', bin('depcruise'), ['--config', '.dependency-cruiser.cjs', 'packages'])
if (!prepared) process.exit(1)

/** Whole systems by the clock of the machine: one at a time, or they would starve each other. */
const groups =
  process.argv.length > 2
    ? [['tests', process.argv.slice(2)]]
    : [
        ['tests of the parts', ['packages', 'test/conformance']],
        [
          'tests of the whole',
          ['--no-file-parallelism', 'test/e2e', 'test/sim', 'test/attach', 'test/docker', 'test/deploy', 'test/chaos', 'test/bench'],
        ],
      ]

/** What failed in a file of tests, each with the first lines of its message; a file that broke outside its tests counts as one. */
function failuresOf({ name, status, message, assertionResults }) {
  const file = relative(root, name)
  const brief = (text) => text.split('\n').slice(0, 12).join('\n    ')
  const failed = assertionResults
    .filter((test) => test.status === 'failed')
    .map((test) => `${file} > ${test.fullName}\n    ${brief(test.failureMessages.join('\n'))}`)
  return failed.length === 0 && status === 'failed' ? [`${file}\n    ${brief(message)}`] : failed
}

const folder = mkdtempSync(join(tmpdir(), 'holdfast-test-'))
const counts = { numPassedTests: 0, numFailedTests: 0, numPendingTests: 0 }
const failures = []
let passedAll = true
for (const [index, [title, args]] of groups.entries()) {
  const report = join(folder, `report-${index}.json`)
  const output = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`]
  passedAll = run(title, bin('vitest'), ['run', ...output, ...args]) && passedAll
  try {
    const found = JSON.parse(readFileSync(report, 'utf8'))
    for (const name of Object.keys(counts)) counts[name] += found[name]
    failures.push(...found.testResults.flatMap(failuresOf))
  } catch {
    passedAll = false
    process.stdout.write('the test runner left no report\n')
  }
}
rmSync(folder, { recursive: true, force: true })
const { numPassedTests, numFailedTests, numPendingTests } = counts
// Said again at the end: a log that keeps only its last lines still says what failed.
for (const failure of failures) process.stdout.write(`\nfailed: ${failure}\n`)
process.stdout.write(`\n${numPassedTests} passed, ${numFailedTests} failed, ${numPendingTests} skipped\n`)
process.exit(passedAll && numPassedTests > 0 ? 0 : 1)
