/** Foreign NBD clients run as processes. A missing one is a failure that says what to install. */
import { execFile, execFileSync } from 'node:child_process'

/** Debian's names of the packages. */
const packageOf = {
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  fio: 'fio',
  '/usr/bin/python3': 'python3-libnbd',
} as const
export type Tool = keyof typeof packageOf

const TIMEOUT_MS = 45_000

export function requireTools(): void {
  for (const [tool, debian] of Object.entries(packageOf)) {
    const probe = tool === '/usr/bin/python3' ? ['-c', 'import nbd'] : ['--version']
    try {
      execFileSync(tool, probe, { stdio: 'ignore' })
    } catch (cause) {
      throw new Error(`${tool} does not work here: install the Debian package ${debian}`, { cause })
    }
  }
}

export interface Result {
  readonly code: number
  readonly output: string
}

/** Runs a tool to its end; `output` is both its streams, standard output first. */
export function run(tool: Tool, args: readonly string[]): Promise<Result> {
  return new Promise((resolve) => {
    const options = { timeout: TIMEOUT_MS, maxBuffer: 64 * 1024 * 1024 }
    execFile(tool, args, options, (error, stdout, stderr) => {
      const code = typeof error?.code === 'number' ? error.code : error === null ? 0 : -1
      resolve({ code, output: stdout + stderr })
    })
  })
}
