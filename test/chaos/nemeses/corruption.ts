/** Bits that change on a disk: in sealed segments under a living node, and in the tail of one that was killed. */
import type { StorageHost } from '../hosts.ts'
import { type BlockOnDisk, flip, holds, newestHeader, sealedContents } from '../segment-files.ts'
import { sleep } from '../../support/waiting.ts'
import type { BlocksWorkload } from '../workloads/blocks.ts'
import type { Fault, Nemesis, NemesisContext } from './nemesis.ts'

const DAMAGED_BLOCKS = 8
/** See `pick` in blocks_client.py. */
const HOT_BLOCKS = 64

function blocksOf({ blocks }: NemesisContext): BlocksWorkload {
  if (blocks === undefined) throw new Error('this nemesis needs the workload blocks')
  return blocks
}

/** Blocks that a reader would get from there now: the newest version is acknowledged, and lies in a sealed segment. */
async function mapped(context: NemesisContext, host: StorageHost): Promise<BlockOnDisk[]> {
  const { history } = blocksOf(context)
  const onDisk = await sealedContents(host)
  // Hot blocks would be written again before anybody has read the damage.
  const cold = onDisk.filter(({ block }) => block >= HOT_BLOCKS)
  const current = cold.filter(({ block, version }) => history.settledVersion(block) === version)
  // Compaction leaves two for a while; only the later one is read.
  const copies = new Map<number, number>()
  for (const { block } of current) copies.set(block, (copies.get(block) ?? 0) + 1)
  const alone = current.filter(({ block }) => copies.get(block) === 1)
  const chosen: BlockOnDisk[] = []
  while (chosen.length < DAMAGED_BLOCKS && alone.length > 0) {
    chosen.push(...alone.splice(context.dice.below(alone.length), 1))
  }
  return chosen
}

export const corruptPrimary: Nemesis = {
  name: 'corrupt-sealed-primary',
  needs: 'blocks',
  async plan(context) {
    const victim = await context.cluster.primaryOf('blocks')
    return damaged(context, victim, async () => {})
  },
}

export const corruptSecondary: Nemesis = {
  name: 'corrupt-sealed-secondary',
  needs: 'blocks',
  async plan(context) {
    const primary = await context.cluster.primaryOf('blocks')
    const victim = context.dice.pick(context.cluster.others(primary))
    // What a secondary's damage is worth shows when it becomes the primary.
    return damaged(context, victim, () => context.cluster.movePrimary('blocks', victim))
  },
}

function damaged(context: NemesisContext, victim: StorageHost, before: () => Promise<void>): Fault {
  const { journal } = context
  return {
    hit: [],
    detail: `bytes in sealed segments of ${victim.name} change; then they are read`,
    holdMs: 2000,
    async start() {
      const chosen: BlockOnDisk[] = []
      for (const block of await mapped(context, victim)) {
        if (await flip(block.file, block.offset)) chosen.push(block)
      }
      if (chosen.length === 0) journal.note('no mapped block was found in a sealed segment')
      await sleep(1000)
      await before()
      await blocksOf(context).read(chosen.map(({ block }) => block))
      await sleep(1000)
      const whole = await Promise.all(chosen.map(holds))
      const repaired = whole.filter((one) => one).length
      const { history } = blocksOf(context)
      const old = chosen.filter(({ block, version }, i) => !whole[i] && history.settledVersion(block) !== version)
      const text = `${repaired} repaired on disk, ${old.length} written anew meanwhile`
      journal.note(`${chosen.length} blocks damaged and read: ${text}, ${chosen.length - repaired - old.length} neither`)
    },
    async stop() {},
  }
}

export const corruptTail: Nemesis = {
  name: 'corrupt-tail',
  needs: 'blocks',
  async plan(context): Promise<Fault> {
    const { cluster, dice, journal } = context
    const victim = dice.pick(cluster.hosts)
    return {
      hit: [victim],
      detail: `kill -9 of ${victim.name}, the last written bytes of its log change, it starts again`,
      holdMs: 3000,
      async start() {
        await victim.program.stop('SIGKILL')
        const header = await newestHeader(victim)
        if (header === undefined) throw new Error(`no batch was found in the log of ${victim.name}`)
        // The header itself or the payload behind it.
        const behind = dice.below(2) * 4096
        if (!(await flip(header.file, header.offset + behind))) throw new Error(`${header.file} is gone`)
        journal.note(`LSN ${header.lsn}: ${behind === 0 ? 'header' : 'payload'} damaged`)
        await victim.start()
      },
      async stop() {
        if (!victim.program.running) await victim.start()
      },
    }
  },
}
