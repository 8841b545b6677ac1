/** What can go wrong, as data: a schedule of faults is made from a seed, kept, shortened and played again. */
import { WIRE_VERSIONS, type WireVersion } from './wire-versions.ts'
import type { SeededRandom } from './world.ts'

/** Who is hit: found when the fault happens, by its part in a volume. */
export interface Victim {
  readonly volume: number
  readonly role: 'primary' | 'secondary' | 'any'
  /** Which of those, 0 to 1. */
  readonly pick: number
}

interface At {
  /** Since the clients began, virtual milliseconds. */
  readonly atMs: number
}
interface Lasting extends At {
  readonly forMs: number
}

export type Fault =
  | ({ readonly kind: 'process-crash' | 'host-crash'; readonly victim: Victim } & Lasting)
  | ({ readonly kind: 'power-loss' } & Lasting)
  | ({ readonly kind: 'pause'; readonly victim: Victim } & Lasting)
  /** Of its machine: the clock of its timers stands still meanwhile. */
  | ({ readonly kind: 'sleep'; readonly victim: Victim } & Lasting)
  | ({ readonly kind: 'clean-restart'; readonly victim: Victim; readonly wire: WireVersion } & At)
  | ({
      readonly kind: 'partition'
      readonly victim: Victim
      readonly other: Victim
      readonly direction: 'both' | 'out' | 'in'
    } & Lasting)
  | ({ readonly kind: 'isolation'; readonly victim: Victim; readonly fromCoordinator: boolean } & Lasting)
  | ({ readonly kind: 'connection-loss'; readonly count: number } & At)
  | ({ readonly kind: 'slow-network'; readonly factor: number } & Lasting)
  | ({ readonly kind: 'coordinator-outage' } & Lasting)
  | ({ readonly kind: 'coordinator-partition'; readonly victim: Victim } & Lasting)
  | ({ readonly kind: 'slow-coordinator'; readonly factor: number } & Lasting)
  | ({ readonly kind: 'late-watches'; readonly lagMs: number } & Lasting)
  | ({ readonly kind: 'watch-compaction' } & At)
  | ({ readonly kind: 'slow-disk'; readonly victim: Victim; readonly factor: number } & Lasting)
  | ({ readonly kind: 'full-disk'; readonly victim: Victim } & Lasting)
  /** It takes writes and ends no flush. */
  | ({ readonly kind: 'hung-disk'; readonly victim: Victim } & Lasting)
  | ({
      readonly kind: 'disk-error'
      readonly victim: Victim
      readonly operation: 'read' | 'write' | 'datasync'
    } & Lasting)
  | ({ readonly kind: 'bit-flip'; readonly victim: Victim; readonly count: number } & At)
  | ({
      readonly kind: 'bad-sector'
      readonly victim: Victim
      readonly count: number
      /** Or for ever. */
      readonly healsAfterMs?: number | undefined
      /** The process crashes with it, and is back after so long: where its log ends then can't be read. */
      readonly crashMs?: number | undefined
    } & At)
  | ({ readonly kind: 'clock-jump'; readonly victim: Victim; readonly ms: number } & At)
  | ({ readonly kind: 'client-vanishes'; readonly pick: number } & At)
  | ({ readonly kind: 'node-joins' } & At)
  | ({ readonly kind: 'drain'; readonly victim: Victim } & Lasting)
  | ({ readonly kind: 'move-primary'; readonly volume: number } & At)

export type FaultKind = Fault['kind']

/** Every kind, with how often it comes where it is enabled. */
const WEIGHTS: Readonly<Record<FaultKind, number>> = {
  'process-crash': 4,
  'host-crash': 3,
  'power-loss': 1,
  pause: 3,
  'clean-restart': 2,
  partition: 3,
  isolation: 3,
  'connection-loss': 3,
  'slow-network': 1,
  'coordinator-outage': 2,
  'coordinator-partition': 2,
  'slow-coordinator': 1,
  'late-watches': 1,
  'watch-compaction': 1,
  'slow-disk': 1,
  'full-disk': 1,
  'disk-error': 1,
  'bit-flip': 1,
  'clock-jump': 1,
  'client-vanishes': 1,
  'node-joins': 1,
  drain: 1,
  'move-primary': 2,
  'hung-disk': 1,
  'bad-sector': 1,
  sleep: 1,
}
export const FAULT_KINDS = Object.keys(WEIGHTS) as FaultKind[]

/** Faults that may give a client an error, because something can't be kept (I9). */
export const MAY_FAIL_REQUESTS: ReadonlySet<FaultKind> = new Set(['full-disk', 'disk-error', 'bit-flip', 'bad-sector'])

export interface ScheduleOptions {
  readonly random: SeededRandom
  readonly lengthMs: number
  readonly leaseTtlMs: number
  readonly volumeCount: number
  /** Kinds that may come; all where absent. */
  readonly kinds?: readonly FaultKind[] | undefined
}

/** Faults spread over `lengthMs`, in the order of their times. */
export function planFaults({ random, lengthMs, leaseTtlMs, volumeCount, kinds }: ScheduleOptions): Fault[] {
  const enabled = enabledKinds(random, kinds ?? FAULT_KINDS)
  const total = enabled.reduce((sum, kind) => sum + WEIGHTS[kind], 0)
  const faults: Fault[] = []
  const gap = random.between(60, 500)
  for (let atMs = random.between(0, gap); atMs < lengthMs; atMs += random.between(0.1, 2) * gap) {
    let left = random.fraction() * total
    const kind = enabled.find((one) => (left -= WEIGHTS[one]) < 0) ?? 'process-crash'
    faults.push(makeFault(kind, random, Math.round(atMs), leaseTtlMs, volumeCount))
  }
  return faults
}

/** Some seeds use all kinds, most a few: what hides one mistake behind another differs from seed to seed. */
function enabledKinds(random: SeededRandom, kinds: readonly FaultKind[]): FaultKind[] {
  const share = random.chance(0.3) ? 1 : random.between(0.15, 0.6)
  const enabled = kinds.filter(() => random.chance(share))
  return enabled.length > 0 ? enabled : [kinds[random.below(kinds.length)] ?? 'process-crash']
}

function makeFault(
  kind: FaultKind,
  random: SeededRandom,
  atMs: number,
  leaseTtlMs: number,
  volumeCount: number,
): Fault {
  const pick = (): number => Number(random.fraction().toFixed(3))
  const victim = (): Victim => {
    const role = random.chance(0.6) ? 'primary' : random.chance(0.5) ? 'secondary' : 'any'
    return { volume: random.below(volumeCount), role, pick: pick() }
  }
  /** Often about as long as the lease, which is where promises end. */
  const forMs = Math.round(
    random.chance(0.4) ? leaseTtlMs * random.between(0.8, 1.3) : random.between(0.02, 2.5) * leaseTtlMs,
  )
  const base = { atMs, forMs }
  switch (kind) {
    case 'process-crash':
    case 'host-crash':
    case 'pause':
    case 'sleep':
    case 'full-disk':
    case 'hung-disk':
    case 'coordinator-partition':
      return { kind, victim: victim(), ...base }
    case 'drain':
      return { kind, victim: victim(), atMs, forMs: forMs * 3 }
    case 'power-loss':
    case 'coordinator-outage':
      return { kind, ...base }
    case 'clean-restart':
      return { kind, victim: victim(), wire: WIRE_VERSIONS[random.below(2)] ?? 'current', atMs }
    case 'partition': {
      const direction = (['both', 'out', 'in'] as const)[random.below(3)] ?? 'both'
      return { kind, victim: victim(), other: victim(), direction, ...base }
    }
    case 'isolation':
      return { kind, victim: victim(), fromCoordinator: random.chance(0.7), ...base }
    case 'connection-loss':
      return { kind, count: 1 + random.below(4), atMs }
    case 'slow-network':
    case 'slow-coordinator':
      return { kind, factor: Math.round(random.between(3, 100)), ...base }
    case 'late-watches':
      return { kind, lagMs: Math.round(random.between(50, 1_500)), ...base }
    case 'slow-disk':
      return { kind, victim: victim(), factor: Math.round(random.between(3, 200)), ...base }
    case 'disk-error': {
      const operation = (['read', 'write', 'datasync'] as const)[random.below(3)] ?? 'write'
      return { kind, victim: victim(), operation, ...base }
    }
    case 'bit-flip':
      return { kind, victim: victim(), count: 1 + random.below(4), atMs }
    case 'bad-sector': {
      const healsAfterMs = random.chance(0.3) ? forMs * 5 : undefined
      const crashMs = random.chance(0.4) ? forMs : undefined
      return { kind, victim: victim(), count: 1 + random.below(4), healsAfterMs, crashMs, atMs }
    }
    case 'clock-jump':
      return { kind, victim: victim(), ms: Math.round(random.between(-1, 1) * 3_600_000), atMs }
    case 'client-vanishes':
      return { kind, pick: pick(), atMs }
    case 'move-primary':
      return { kind, volume: random.below(volumeCount), atMs }
    case 'watch-compaction':
    case 'node-joins':
      return { kind, atMs }
  }
}

export function describeFault(fault: Fault): string {
  const { kind, atMs, ...rest } = fault
  const details = Object.entries(rest).map(([name, value]) => `${name} ${JSON.stringify(value)}`)
  return `${String(atMs).padStart(6)} ms  ${kind}${details.length === 0 ? '' : `  ${details.join(', ')}`}`
}
