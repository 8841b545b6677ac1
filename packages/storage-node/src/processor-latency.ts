/**
 * How long a processor may take to wake: the kernel's PM QoS interface, Documentation/power/pm_qos_interface.rst. Who holds
 * /dev/cpu_dma_latency open has written a number of microseconds there; the least of all counts, for all processors. The
 * kernel forgets it with the descriptor.
 */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import type { ProcessorLatency } from './keep-awake.ts'

export const LATENCY_DEVICE = '/dev/cpu_dma_latency'
const IDLE_DRIVER = '/sys/devices/system/cpu/cpuidle/current_driver'
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

/** What a busy node asks of the machine that it runs on. @throws as `openProcessorLatency`. */
export function openLatencyOfHost(): ProcessorLatency {
  return openProcessorLatency(LATENCY_DEVICE, wantedLatencyUs(textOf('/proc/cpuinfo')))
}

/** Microseconds. @param cpuInfo The text of /proc/cpuinfo. */
export function wantedLatencyUs(cpuInfo: string): number {
  const flags = /^flags\s*:.*$/m.exec(cpuInfo)?.[0]
  // Other architectures don't say whether they are virtual; theirs have a first sleep that even 0 allows.
  return flags === undefined || /\bhypervisor\b/.test(flags) ? VIRTUAL_US : REAL_US
}

/** Whether anybody heeds the wish: without a driver for its idle states a kernel halts processors as it always did. */
export function idleStatesAreChosen(): boolean {
  const driver = textOf(IDLE_DRIVER).trim()
  return driver !== '' && driver !== 'none'
}

/** Of a file of /proc or /sys, empty where there is none. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
