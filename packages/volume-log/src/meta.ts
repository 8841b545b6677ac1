/** The small file that says what kind of log lies in a directory and how it was left. */
import { type Disk, type DiskDone, type DiskError, joinBytes } from '@holdfast/base'
import type { ReplicaLogOptions } from './types.ts'

export interface Meta {
  readonly format: 1
  readonly volume: string
  readonly segmentBlocks: number
  /** At creation; the log's resize records come on top. */
  readonly sizeBytes: number
  /** Boot of the host under which the log was last changed. */
  bootId: string
  /** Closed in order, and nothing appended since. */
  clean: boolean
  /** An unclean stop with loss of the page cache, not caught up since (I5). */
  suspect: boolean
  /** It was created anew where a complete copy should have been, and has not been fed since. Absent: no. */
  lost?: boolean | undefined
  /** Everything below was on disk when this was written. */
  durableLsn: number
  state: 'normal' | 'rebuilding'
  /** Rebuilding: segments that are whole already. */
  kept: number[]
  /** A truncation under way: everything from here on is to go. */
  cutTo: number | undefined
}

/** Of a log that is empty so far. */
export function newMeta(options: Pick<ReplicaLogOptions, 'volume' | 'segmentBlocks' | 'sizeBytes' | 'bootId' | 'expected'>): Meta {
  const lost = options.expected === true
  return {
    format: 1,
    volume: options.volume,
    segmentBlocks: options.segmentBlocks,
    sizeBytes: options.sizeBytes,
    bootId: options.bootId,
    clean: true,
    suspect: lost,
    ...(lost ? { lost } : {}),
    durableLsn: 0,
    state: 'normal',
    kept: [],
    cutTo: undefined,
  }
}

export class MetaFile {
  readonly #disk: Disk
  readonly #path: string
  value: Meta
  #running = false
  #waiting: DiskDone[] = []
  #idle: (() => void)[] = []

  constructor(disk: Disk, path: string, value: Meta) {
    this.#disk = disk
    this.#path = path
    this.value = value
  }

  /** Writes the present value; calls meanwhile share the next write. */
  save(done: DiskDone): void {
    this.#waiting.push(done)
    if (!this.#running) this.#next()
  }

  /** Calls back, at once perhaps, when nothing is being written. */
  whenIdle(callback: () => void): void {
    if (this.#running) this.#idle.push(callback)
    else callback()
  }

  #next(): void {
    const waiting = this.#waiting
    if (waiting.length === 0) {
      for (const callback of this.#idle.splice(0)) callback()
      return
    }
    this.#waiting = []
    this.#running = true
    this.#disk.writeAtomic(this.#path, [encodeText(`${JSON.stringify(this.value)}\n`)], (error) => {
      this.#running = false
      for (const done of waiting) done(error)
      if (!this.#running) this.#next()
    })
  }
}

/** The meta of a directory; undefined when there is none, an error when it can't be understood. */
export function readMeta(disk: Disk, path: string): Meta | undefined | DiskError {
  const bytes = disk.readWhole(path)
  if ('kind' in bytes) return bytes.kind === 'absent' ? undefined : bytes
  try {
    const value = JSON.parse(decodeText(joinBytes(bytes))) as Meta
    if (value.format !== 1) return { kind: 'io', message: `${path} has an unknown format` }
    return { ...value, cutTo: value.cutTo ?? undefined }
  } catch {
    return { kind: 'io', message: `${path} is no valid JSON: restore the replica from a peer` }
  }
}

/** ASCII text as bytes: pure packages have no TextEncoder. Other characters become '?'. */
export function encodeText(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => {
    const code = character.charCodeAt(0)
    return code < 128 ? code : 63
  })
}

function decodeText(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += String.fromCharCode(byte)
  return text
}
