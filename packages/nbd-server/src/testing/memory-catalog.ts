/** Exports held in memory, for tests and measurements. */
import {
  type BlockStatusExtent,
  type Completion,
  type Errno,
  errno,
  type ExportCatalog,
  type ExportInfo,
  type ExportSession,
  HoldfastError,
} from '@holdfast/base'

const HOLE_BYTES = 4096
/** Buffers of `reserve` kept for the next one. */
const REUSABLE_MAX = 4

export interface MemoryExportOptions {
  readonly description?: string | undefined
  readonly readOnly?: boolean | undefined
  /** Answers reads later instead of at once. */
  readonly slowReads?: boolean | undefined
  /** Answers nothing until `release` is called. */
  readonly held?: boolean | undefined
}

export class MemoryExport {
  readonly info: ExportInfo
  readonly bytes: Uint8Array
  /** One byte per 4 KiB: 1 = written. */
  readonly allocated: Uint8Array
  readonly slowReads: boolean
  /** What the sessions were asked, in order, for tests. */
  flushCount = 0
  fuaCount = 0
  cacheCount = 0
  keepAllocatedCount = 0
  openSessions = 0
  /** Buffers of `reserve` not handed back. */
  reservedCount = 0
  /** The next requests fail with it. */
  failure: Errno = errno.OK
  held: boolean
  readonly #waiting: (() => void)[] = []

  constructor(name: string, sizeBytes: number, options: MemoryExportOptions = {}) {
    const { description = '', readOnly = false } = options
    this.info = { name, description, sizeBytes, readOnly }
    this.bytes = new Uint8Array(sizeBytes)
    this.allocated = new Uint8Array(Math.ceil(sizeBytes / HOLE_BYTES))
    this.slowReads = options.slowReads ?? false
    this.held = options.held ?? false
  }

  hold(action: () => void): void {
    this.#waiting.push(action)
  }

  release(): void {
    this.held = false
    for (const action of this.#waiting.splice(0)) action()
  }
}

export class MemoryCatalog implements ExportCatalog {
  readonly exports: readonly MemoryExport[]

  constructor(...exports: MemoryExport[]) {
    this.exports = exports
  }

  list(): readonly ExportInfo[] {
    return this.exports.map(({ info }) => info)
  }

  find(name: string): ExportInfo | undefined {
    return this.#lookUp(name)?.info
  }

  open(name: string, completion: Completion): ExportSession {
    const found = this.#lookUp(name)
    if (found === undefined) throw new HoldfastError('HF_NOT_FOUND', `there is no export ${name}`)
    return new MemorySession(found, completion)
  }

  #lookUp(name: string): MemoryExport | undefined {
    if (name === '' && this.exports.length === 1) return this.exports[0]
    return this.exports.find(({ info }) => info.name === name)
  }
}

class MemorySession implements ExportSession {
  readonly info: ExportInfo
  readonly #export: MemoryExport
  readonly #completion: Completion
  /** Fresh memory would cost more than the write: every page of it must be mapped first. */
  readonly #reusable: Uint8Array[] = []
  /** Completions of this turn, as parallel arrays. */
  #tokens: number[] = []
  #errors: Errno[] = []
  #scheduled = false
  #closed = false

  constructor(memory: MemoryExport, completion: Completion) {
    this.info = memory.info
    this.#export = memory
    this.#completion = completion
    memory.openSessions++
  }

  read(
    token: number,
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
  ): boolean {
    const { bytes, slowReads, held, failure } = this.#export
    if (slowReads || held || failure !== errno.OK) {
      this.#later(token, () => target.set(bytes.subarray(offset, offset + length), targetOffset))
      return false
    }
    target.set(bytes.subarray(offset, offset + length), targetOffset)
    return true
  }

  write(
    token: number,
    offset: number,
    source: Uint8Array,
    sourceStart: number,
    length: number,
    fua: boolean,
  ): void {
    if (this.#export.failure === errno.OK) {
      this.#export.bytes.set(source.subarray(sourceStart, sourceStart + length), offset)
      this.#allocate(offset, length, 1)
      if (fua) this.#export.fuaCount++
    }
    this.#later(token)
  }

  reserve(length: number): Uint8Array {
    this.#export.reservedCount++
    const last = this.#reusable.pop()
    return last?.length === length ? last : Buffer.allocUnsafeSlow(length)
  }

  received(): void {}

  writeReserved(token: number, offset: number, reserved: Uint8Array, fua: boolean): void {
    this.unreserve(reserved)
    this.write(token, offset, reserved, 0, reserved.length, fua)
  }

  unreserve(reserved: Uint8Array): void {
    this.#export.reservedCount--
    if (this.#reusable.length < REUSABLE_MAX) this.#reusable.push(reserved)
  }

  zero(
    token: number,
    offset: number,
    length: number,
    options: { readonly fua: boolean; readonly keepAllocated: boolean },
  ): void {
    if (this.#export.failure === errno.OK) {
      this.#export.bytes.fill(0, offset, offset + length)
      this.#allocate(offset, length, options.keepAllocated ? 1 : 0)
      if (options.fua) this.#export.fuaCount++
      if (options.keepAllocated) this.#export.keepAllocatedCount++
    }
    this.#later(token)
  }

  flush(token: number): void {
    this.#export.flushCount++
    this.#later(token)
  }

  cache(token: number): void {
    this.#export.cacheCount++
    this.#later(token)
  }

  blockStatus(
    offset: number,
    length: number,
    extentCountMax: number,
    done: (error: Errno, extents: readonly BlockStatusExtent[]) => void,
  ): void {
    const { allocated } = this.#export
    const extents: { lengthBytes: number; hole: boolean }[] = []
    for (let at = offset; at < offset + length; ) {
      const block = Math.floor(at / HOLE_BYTES)
      const end = Math.min((block + 1) * HOLE_BYTES, offset + length)
      const hole = allocated[block] === 0
      const last = extents.at(-1)
      if (last !== undefined && last.hole === hole) last.lengthBytes += end - at
      else if (extents.length === extentCountMax) break
      else extents.push({ lengthBytes: end - at, hole })
      at = end
    }
    setImmediate(() => {
      if (!this.#closed) done(this.#export.failure, extents)
    })
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#export.openSessions--
  }

  /** A range that is only partly zeroed stays allocated. */
  #allocate(offset: number, length: number, value: 0 | 1): void {
    const { allocated, info } = this.#export
    const end = offset + length
    const first = value === 1 ? Math.floor(offset / HOLE_BYTES) : Math.ceil(offset / HOLE_BYTES)
    const whole = end === info.sizeBytes ? allocated.length : Math.floor(end / HOLE_BYTES)
    allocated.fill(value, first, value === 1 ? Math.ceil(end / HOLE_BYTES) : Math.max(first, whole))
  }

  #later(token: number, action?: () => void): void {
    const error = this.#export.failure
    if (this.#export.held) {
      this.#export.hold(() => {
        action?.()
        this.#complete(token, error)
      })
      return
    }
    action?.()
    this.#tokens.push(token)
    this.#errors.push(error)
    if (this.#scheduled) return
    this.#scheduled = true
    process.nextTick(completeLater, this)
  }

  /** For `completeLater` only. */
  completeTurn(): void {
    this.#scheduled = false
    const tokens = this.#tokens
    const errors = this.#errors
    this.#tokens = []
    this.#errors = []
    for (let i = 0; i < tokens.length; i++) {
      this.#complete(tokens[i] as number, errors[i] as Errno)
    }
  }

  #complete(token: number, error: Errno): void {
    if (!this.#closed) this.#completion(token, error)
  }
}

function completeLater(session: MemorySession): void {
  session.completeTurn()
}
