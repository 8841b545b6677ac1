/** The simulator must be able to fail: planted in a copy of the sources, each mistake is found. */
import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Change, MISTAKES } from './mistakes.ts'

const ROOT = new URL('../..', import.meta.url).pathname
let copy = ''

/** The sources alone; what is installed and compiled stays where it is. */
beforeAll(() => {
  copy = mkdtempSync(join(tmpdir(), 'holdfast-mistakes-'))
  for (const name of readdirSync(join(ROOT, 'packages'))) {
    mkdirSync(join(copy, 'packages', name), { recursive: true })
    for (const part of ['package.json', 'src']) {
      cpSync(join(ROOT, 'packages', name, part), join(copy, 'packages', name, part), { recursive: true })
    }
  }
  cpSync(join(ROOT, 'test', 'sim'), join(copy, 'test', 'sim'), { recursive: true })
  for (const file of ['package.json', 'tsconfig.base.json']) cpSync(join(ROOT, file), join(copy, file))
  symlinkSync(join(ROOT, 'native'), join(copy, 'native'))
  mkdirSync(join(copy, 'node_modules', '@holdfast'), { recursive: true })
  for (const name of readdirSync(join(ROOT, 'node_modules'))) {
    if (name !== '@holdfast') symlinkSync(join(ROOT, 'node_modules', name), join(copy, 'node_modules', name))
  }
  for (const name of readdirSync(join(copy, 'packages'))) {
    symlinkSync(join(copy, 'packages', name), join(copy, 'node_modules', '@holdfast', name))
  }
})

afterAll(() => rmSync(copy, { recursive: true, force: true }))

describe('the simulator finds a primary that', () => {
  it.each(MISTAKES)('$name, within $seedsMax seeds', { timeout: 300_000 }, async ({ changes, seedsMax, shards, kinds }) => {
    const undo = changes.map(plant)
    try {
      const { code, output } = await simulate(seedsMax, shards, kinds)
      expect(output).toMatch(/seed \d+ FAILED/)
      // A change that does not even run finds nothing.
      expect(output).not.toMatch(/ReferenceError|SyntaxError|TypeError/)
      expect(code).toBe(1)
    } finally {
      for (const restore of undo.reverse()) restore()
    }
  })

  it('does nothing wrong, not', { timeout: 300_000 }, async () => {
    expect(await simulate(20)).toMatchObject({ code: 0 })
  })
})

/** Changes one place of the copy; the result undoes it. */
function plant({ file, find, replace }: Change): () => void {
  const path = join(copy, file)
  const source = readFileSync(path, 'utf8')
  expect(source.split(find), `${file} has the place to change exactly once`).toHaveLength(2)
  writeFileSync(path, source.replace(find, replace))
  return () => writeFileSync(path, source)
}

function simulate(seeds: number, shards = false, kinds?: string): Promise<{ code: number; output: string }> {
  const program = ['--conditions=@holdfast/source', '--import', 'tsx', 'test/sim/run.ts']
  const chosen = [...(shards ? ['--shards'] : []), ...(kinds === undefined ? [] : ['--kinds', kinds])]
  const args = ['--seeds', String(seeds), '--jobs', '2', '--stop', '--no-shrink', ...chosen]
  return new Promise((resolve) => {
    execFile(process.execPath, [...program, ...args], { cwd: copy, maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      resolve({ code: Number(error?.code ?? 0), output: stdout + stderr })
    })
  })
}
