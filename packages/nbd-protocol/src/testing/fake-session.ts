/** An ExportCatalog with one export in memory whose completions the test releases by hand. */
import type {
  BlockStatusExtent,
  Completion,
  Errno,
  ExportCatalog,
  ExportInfo,
  ExportSession,
} from '@holdfast/base'

export class FakeCatalog implements ExportCatalog {
  readonly infos: readonly ExportInfo[]
  readonly bytes: Uint8Array
  opened: FakeSession | undefined

  constructor(...infos: ExportInfo[]) {
    this.infos = infos
    this.bytes = new Uint8Array(infos[0]?.sizeBytes ?? 0)
  }

  list(): readonly ExportInfo[] {
    return this.infos
  }

  find(name: string): ExportInfo | undefined {
    if (name === '' && this.infos.length === 1) return this.infos[0]
    return this.infos.find((info) => info.name === name)
  }

  open(name: string, completion: Completion): ExportSession {
    const info = this.find(name)
    if (info === undefined) throw new Error('opened an export that was not found')
    this.opened = new FakeSession(info, this.bytes, completion)
    return this.opened
  }
}

export class FakeSession implements ExportSession {
  readonly info: ExportInfo
  readonly bytes: Uint8Array
  /** Reads are completed later, with the bytes of when they were asked for. */
  lateReads = false
  /** What every later request answers. */
  failure: Errno = 0
  extents: readonly BlockStatusExtent[] = []
  readonly calls: string[] = []
  readonly reserved = new Set<Uint8Array>()
  /** What `received` was told, in order. */
  readonly receivedBytes: number[] = []
  closed = false
  readonly #completion: Completion
  #pending: (() => void)[] = []

  constructor(info: ExportInfo, bytes: Uint8Array, completion: Completion) {
    this.info = info
    this.bytes = bytes
    this.#completion = completion
  }

  /** Answers what was asked so far, the newest first if `reversed`. */
  completeAll(reversed = false): void {
    const pending = this.#pending
    this.#pending = []
    for (const complete of reversed ? pending.reverse() : pending) complete()
  }

  get pendingCount(): number {
    return this.#pending.length
  }

  read(
    token: number,
    offset: number,
    length: number,
    target: Uint8Array,
    targetOffset: number,
  ): boolean {
    this.calls.push(`read ${offset} ${length}`)
    const data = this.bytes.slice(offset, offset + length)
    if (this.lateReads || this.failure !== 0) {
      this.#later(token, () => target.set(data, targetOffset))
      return false
    }
    target.set(data, targetOffset)
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
    this.calls.push(`write ${offset} ${length}${fua ? ' fua' : ''}`)
    this.bytes.set(source.subarray(sourceStart, sourceStart + length), offset)
    this.#later(token)
  }

  reserve(length: number): Uint8Array {
    // In the middle of something larger, as the log's buffers are.
    const reserved = new Uint8Array(length + 16).subarray(8, 8 + length)
    this.reserved.add(reserved)
    return reserved
  }

  received(reserved: Uint8Array, bytes: number): void {
    if (!this.reserved.has(reserved)) throw new Error('not a reserved buffer')
    this.receivedBytes.push(bytes)
  }

  writeReserved(token: number, offset: number, reserved: Uint8Array, fua: boolean): void {
    this.unreserve(reserved)
    this.calls.push(`writeReserved ${offset} ${reserved.length}${fua ? ' fua' : ''}`)
    this.bytes.set(reserved, offset)
    this.#later(token)
  }

  unreserve(reserved: Uint8Array): void {
    if (!this.reserved.delete(reserved)) throw new Error('not a reserved buffer')
  }

  zero(
    token: number,
    offset: number,
    length: number,
    options: { readonly fua: boolean; readonly keepAllocated: boolean },
  ): void {
    const words = `${options.fua ? ' fua' : ''}${options.keepAllocated ? ' keep' : ''}`
    this.calls.push(`zero ${offset} ${length}${words}`)
    this.bytes.fill(0, offset, offset + length)
    this.#later(token)
  }

  flush(token: number): void {
    this.calls.push('flush')
    this.#later(token)
  }

  cache(token: number, offset: number, length: number): void {
    this.calls.push(`cache ${offset} ${length}`)
    this.#later(token)
  }

  blockStatus(
    offset: number,
    length: number,
    extentCountMax: number,
    done: (error: Errno, extents: readonly BlockStatusExtent[]) => void,
  ): void {
    this.calls.push(`status ${offset} ${length} ${extentCountMax}`)
    const error = this.failure
    this.#pending.push(() => done(error, this.extents))
  }

  close(): void {
    this.closed = true
    this.#pending = []
  }

  #later(token: number, action?: () => void): void {
    const error = this.failure
    this.#pending.push(() => {
      action?.()
      this.#completion(token, error)
    })
  }
}
