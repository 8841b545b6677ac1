/**
 * The smallest and the largest of what grows, each on a node of its own, measured in interleaved rounds: single
 * runs, as the other parts make them, lie further apart than what is asked for here.
 */
import { createVolume, startCluster } from '../bed/cluster.ts'
import type { Host } from '../bed/host.ts'
import { figure, spread, type Table } from '../system/report.ts'
import { median, ratio } from '../system/statistics.ts'
import { alone, createVolumes, type GrowthSettings, idleShare, memory, settle, speed } from './measure.ts'

const GIB = 2 ** 30
const MIB = 2 ** 20
/** Of what the smallest does. */
const AT_LEAST = 0.9

/** One figure of both, round by round. */
export interface Ends {
  readonly title: string
  readonly smallest: readonly number[]
  readonly largest: readonly number[]
}

export interface IdleCost {
  readonly volumes: number
  readonly memoryMiB: number
  /** Of one core, round by round. */
  readonly shares: readonly number[]
}

export interface EndsResult {
  readonly ends: readonly Ends[]
  readonly idle: IdleCost
}

interface End {
  readonly uri: string
  /** Bytes from the beginning of the volume that requests go to. */
  readonly span: number
}

/** Rounds of both, each first in every other one; the first round warms up and doesn't count. Titles end with `suffix`. */
async function rounds(host: Host, settings: GrowthSettings, suffix: string, pair: readonly [End, End]): Promise<Ends[]> {
  const figures = new Map<string, [number[], number[]]>()
  for (let round = 0; round <= settings.rounds; round++) {
    settings.say(round === 0 ? 'warming up' : `round ${round} of ${settings.rounds}`)
    for (const side of round % 2 === 0 ? ([0, 1] as const) : ([1, 0] as const)) {
      const { uri, span } = pair[side]
      const measured = await speed(host, uri, span, settings.seconds, suffix)
      for (const [title, value] of Object.entries(measured)) {
        const both = figures.get(title) ?? [[], []]
        figures.set(title, both)
        if (round > 0) both[side].push(value)
      }
    }
  }
  return [...figures].map(([title, [smallest, largest]]) => ({ title, smallest, largest }))
}

async function sizes(host: Host, settings: GrowthSettings): Promise<Ends[]> {
  const start = async (gib: number): Promise<End> => {
    const cluster = await startCluster(host, `size-${gib}`, 1)
    const { uri } = await createVolume(cluster, 'v', 1, gib * GIB)
    return { uri, span: gib * GIB }
  }
  settings.say('a volume of 1 GiB beside one of 4 TiB')
  const [small, large] = [await start(1), await start(4096)]
  // The same blocks in both first: what is written all over the large one lies between them from then on.
  const same = await rounds(host, settings, ', 1 GiB to 4 TiB', [small, { ...large, span: small.span }])
  return [...same, ...(await rounds(host, settings, ' all over it, 1 GiB to 4 TiB', [small, large]))]
}

async function counts(host: Host, settings: GrowthSettings): Promise<EndsResult> {
  const most = settings.quick ? 100 : 2000
  const end = async (count: number) => {
    const cluster = await startCluster(host, `count-${count}`, 1)
    await createVolumes(cluster, count, GIB)
    const uri = `nbd+unix:///v0?socket=${cluster.nodes[0]?.socket}`
    return { cluster, uri, span: 256 * MIB }
  }
  settings.say(`a node with one volume beside one with ${most}`)
  const pair = [await end(1), await end(most)] as const
  await settle(settings, most)
  const { pids } = pair[1].cluster
  const shares: number[] = []
  for (let round = 0; round < settings.rounds; round++) shares.push(await idleShare(pids, settings.quick ? 5 : 20))
  const idle = { volumes: most, memoryMiB: memory(pids)['memory (MiB)'] ?? Number.NaN, shares }
  return { ends: await rounds(host, settings, `, 1 to ${most} volumes`, pair), idle }
}

export async function measureEnds(settings: GrowthSettings): Promise<EndsResult> {
  const bySize = await alone(settings, (host) => sizes(host, settings))
  const byCount = await alone(settings, (host) => counts(host, settings))
  return { ends: [...bySize, ...byCount.ends], idle: byCount.idle }
}

export function endsTable({ ends }: EndsResult): Table {
  return [
    ['what', 'smallest', 'largest', 'largest ÷ smallest', 'at least', ''],
    ...ends.map(({ title, smallest, largest }) => {
      const by = ratio(largest, smallest)
      const met = by !== undefined && by.median >= AT_LEAST ? 'met' : 'missed'
      return [title, figure(median(smallest)), figure(median(largest)), spread(by), String(AT_LEAST), met]
    }),
  ]
}

export function idleLine({ idle: { volumes, memoryMiB, shares } }: EndsResult): string {
  const percent = (share: number): string => `${(share * 100).toFixed(2)} %`
  const range = `${percent(Math.min(...shares))} to ${percent(Math.max(...shares))}`
  return (
    `${figure(volumes)} volumes at rest take ${figure(memoryMiB)} MiB and ${percent(median(shares))} of a core ` +
    `(${range} in ${shares.length} looks).`
  )
}
