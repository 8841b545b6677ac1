/** Opens or creates the log of a replica. */
import { lsn } from '@holdfast/base'
import type { DiskError } from '@holdfast/base'
import { LogCore } from './log-core.ts'
import { newMeta, readMeta } from './meta.ts'
import { Recovery } from './recovery.ts'
import { ReplicaLog } from './replica-log.ts'
import { finishSettingAside, removeOldCuts } from './truncation.ts'
import type { LogOpenError, RecoveryReport, ReplicaLogOptions } from './types.ts'

export type OpenDone = (
  error: LogOpenError | undefined,
  log: ReplicaLog | undefined,
  report: RecoveryReport | undefined,
) => void

/** Calls back later, with a log in state `ok`, `damaged` or `rebuilding`, or with an error. */
export function openReplicaLog(options: ReplicaLogOptions, done: OpenDone): void {
  options.disk.removeUnfinished(options.path)
  finishSettingAside(options.disk, options.path, options.wallMs?.() ?? 0)
  const found = readMeta(options.disk, `${options.path}/meta`)
  if (found === undefined) return create(options, done)
  if ('kind' in found) return refuse(options, 'io', found.message, done)
  if (found.volume !== options.volume || found.segmentBlocks !== options.segmentBlocks) {
    const message = `${options.path} belongs to volume ${found.volume} with segments of ${found.segmentBlocks} blocks`
    return refuse(options, 'mismatch', message, done)
  }
  const core = new LogCore(options, found)
  core.suspect = found.suspect || (!found.clean && found.bootId !== options.bootId)
  removeOldCuts(core)
  if (found.state === 'rebuilding') return openRebuilding(core, done)
  new Recovery(core, (error, report) => {
    if (error !== undefined) return done(error, undefined, undefined)
    const log = new ReplicaLog(core)
    if (report?.soft !== true) return done(undefined, log, report)
    log.harden((hardenError) => {
      if (hardenError === undefined) return done(undefined, log, report)
      log.close(false, () => done({ kind: 'io', message: hardenError.message }, undefined, undefined))
    })
  }).run()
}

function create(options: ReplicaLogOptions, done: OpenDone): void {
  const stray = options.disk.list(options.path).some((name) => name.startsWith('segment-'))
  if (stray) {
    return refuse(options, 'io', `${options.path} has segments and no meta: restore it from a peer`, done)
  }
  options.disk.makeDirectory(options.path)
  const core = new LogCore(options, newMeta(options))
  core.suspect = core.meta.value.suspect
  core.meta.save((error: DiskError | undefined) => {
    if (error !== undefined) return done({ kind: 'io', message: error.message }, undefined, undefined)
    done(undefined, new ReplicaLog(core), emptyReport(true, core.suspect, false))
  })
}

/** A rebuild was interrupted: nothing is readable before it is finished. */
function openRebuilding(core: LogCore, done: OpenDone): void {
  core.state = 'rebuilding'
  core.suspect = false
  core.segments.adopt(core.disk.list(core.geometry.path))
  core.scheduler.soon(() => done(undefined, new ReplicaLog(core), emptyReport(false, false, true)))
}

function refuse(
  options: ReplicaLogOptions,
  kind: LogOpenError['kind'],
  message: string,
  done: OpenDone,
): void {
  options.scheduler.soon(() => done({ kind, message }, undefined, undefined))
}

function emptyReport(created: boolean, suspect: boolean, rebuilding: boolean): RecoveryReport {
  return {
    created,
    checkpointLsn: lsn(0),
    replayedBatches: 0,
    cutAtLsn: undefined,
    damage: [],
    suspect,
    rebuilding,
    soft: false,
  }
}
