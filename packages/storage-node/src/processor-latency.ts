/**
 * How long a processor may take to wake: the kernel's PM QoS interface, Documentation/power/pm_qos_interface.rst. Who holds
 * /dev/cpu_dma_latency open has written a number of microseconds there; the least of all counts, for all processors.
 */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import type { ProcessorLatency } from './keep-awake.ts'

export const LATENCY_DEVICE = '/dev/cpu_dma_latency'
/** PM_QOS_CPU_LATENCY_DEFAULT_VALUE: no wish. */
const ANY_US = 2_000_000_000
/** No sleep at all: a virtual processor that halts is taken off its core. */
const VIRTUAL_US = 0
/** The first sleep of real processors, which saves most and takes one or two to leave; none of the deeper. */
const REAL_US = 2

/** @throws what the system says (`code`) where the device is not there or not for this user. */
export function openProcessorLatency(device: string, limitUs: number): ProcessorLatency {
  let fd: number | undefined = openSync(device, 'r+')
  const write = (us: number): void => {
    if (fd !== undefined) writeSync(fd, Buffer.from(Int32Array.of(us).buffer))
  }
  return {
    limit: (wanted) => write(wanted ? limitUs : ANY_US),
    close: () => {
      if (fd !== undefined) closeSync(fd)
      fd = undefined
    },
  }
}

/** Microseconds, for this machine. @param cpuInfo The text of /proc/cpuinfo. */
export function wantedLatencyUs(cpuInfo: string): number {
  return /^flags\s*:.*\bhypervisor\b/m.test(cpuInfo) ? VIRTUAL_US : REAL_US
}

/** The text of /proc/cpuinfo, as far as there is one. */
export function readCpuInfo(): string {
  try {
    return readFileSync('/proc/cpuinfo', 'utf8')
  } catch {
    return ''
  }
}
