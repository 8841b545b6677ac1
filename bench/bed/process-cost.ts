/** What a tree of processes has used: CPU time and memory, from /proc. */
import { readdirSync, readFileSync } from 'node:fs'

/** `getconf CLK_TCK`; 100 on every Linux that Node runs on. */
export const TICKS_PER_SECOND = 100

export interface ProcessCost {
  /** User and system time of all processes alive and of the children they have waited for. */
  readonly cpuSeconds: number
  /** Proportional set size: pages shared by several processes count once. */
  readonly memoryMiB: number
  /** Heap and stacks: what is left without files that are mapped. */
  readonly anonymousMiB: number
}

interface Entry {
  readonly pid: number
  readonly parent: number
  readonly ticks: number
}

function readEntry(pid: number): Entry | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    // The command in brackets may hold blanks and brackets itself.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0)
    return { pid, parent: Number(fields[1]), ticks }
  } catch {
    return undefined
  }
}

/** The processes of these roots, with all that descend from them. */
function tree(roots: readonly number[]): Entry[] {
  const entries = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => readEntry(Number(name)))
    .filter((entry) => entry !== undefined)
  const wanted = new Set(roots)
  let before = -1
  while (before !== wanted.size) {
    before = wanted.size
    for (const { pid, parent } of entries) if (wanted.has(parent)) wanted.add(pid)
  }
  return entries.filter(({ pid }) => wanted.has(pid))
}

function memoryOf(pid: number): { readonly pss: number; readonly anonymous: number } {
  try {
    const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1')
    const of = (field: string): number => Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0)
    return { pss: of('Pss'), anonymous: of('Anonymous') }
  } catch {
    return { pss: 0, anonymous: 0 }
  }
}

/** CPU time alone, which is cheap to ask for. */
export function cpuSeconds(roots: readonly number[]): number {
  return tree(roots).reduce((sum, { ticks }) => sum + ticks, 0) / TICKS_PER_SECOND
}

/** CPU time of the whole machine since it was started, whoever used it. */
export function machineCpuSeconds(): number {
  const line = readFileSync('/proc/stat', 'latin1').split('\n')[0] ?? ''
  const fields = line.trim().split(/\s+/).slice(1).map(Number)
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = fields
  return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND
}

export function processCost(roots: readonly number[]): ProcessCost {
  const entries = tree(roots)
  const memory = entries.map(({ pid }) => memoryOf(pid))
  return {
    cpuSeconds: entries.reduce((sum, { ticks }) => sum + ticks, 0) / TICKS_PER_SECOND,
    memoryMiB: memory.reduce((sum, { pss }) => sum + pss, 0) / 1024,
    anonymousMiB: memory.reduce((sum, { anonymous }) => sum + anonymous, 0) / 1024,
  }
}
