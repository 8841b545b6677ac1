import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { ModuleKind, transpileModule } from 'typescript'
import { expect, it } from 'vitest'

/** As JavaScript: a loader for TypeScript would be a thread with a heap of its own. */
const MODULE = transpileModule(readFileSync(new URL('./garbage-collection.ts', import.meta.url), 'utf8'), {
  compilerOptions: { module: ModuleKind.ESNext },
}).outputText

/** By what V8 multiplies the old objects after a quiet time: in the first thread and in another. */
async function growth(start: string): Promise<readonly number[]> {
  const quiet = `
    gc()
    setTimeout(gc, 600)
  `
  const program = `
    import { Worker } from 'node:worker_threads'
    ${start}
    ${quiet}
    new Worker(${JSON.stringify(quiet)}, { eval: true })
  `
  const flags = ['--expose-gc', '--trace-gc-verbose']
  const args = [...flags, '--input-type=module', '--eval', program]
  const { stdout } = await promisify(execFile)(process.execPath, args)
  const last = new Map<string, number>()
  for (const line of stdout.split('\n')) {
    const [, isolate, factor] = /:(0x\w+)\].*\[HeapController\] Limit:.* \(([\d.]+)\)/.exec(line) ?? []
    if (isolate !== undefined) last.set(isolate, Number(factor))
  }
  return [...last.values()]
}

it('old objects of a node may grow fourfold, in each of its threads, where V8 by itself would give them little', async () => {
  const usual = await growth('')
  const ours = await growth(`${MODULE}; collectLessOften()`)
  expect(usual).toHaveLength(2)
  expect(ours).toHaveLength(2)
  for (const factor of usual) expect(factor).toBeLessThan(3.5)
  for (const factor of ours) expect(factor).toBeGreaterThan(3.9)
})
