/**
 * Every block as a register: what a read may return, given what was written, acknowledged and read before.
 *
 * Versions of one block are written one at a time and grow. A version read must not be older than the newest
 * one acknowledged or read before the read began, nor newer than the newest ever written.
 */
interface Register {
  /** Newest version that every later read must at least show. */
  floor: number
  /** Newest version that durability was acknowledged for (flush, FUA). */
  durable: number
  acknowledged: number
  issued: number
  /** Versions that were written as zeroes; none until there is one. */
  zeroes: number[] | undefined
}

/** What had been acknowledged when a flush was asked for. */
export interface FlushSnapshot {
  readonly blocks: readonly { readonly block: number; readonly version: number }[]
  /** Losses of power before it: a flush says nothing about what one of them took. */
  readonly losses: number
}

export class RegisterChecker {
  readonly #registers = new Map<number, Register>()
  /** Acknowledged beyond what is known to be durable. */
  readonly #unflushed = new Set<number>()
  /** Losses of power so far. What was asked before one and answered after it proves little: see `SimClient`. */
  losses = 0
  /** Those of them that may have taken what was flushed, too. */
  flushedLosses = 0
  reads = 0
  acknowledgedWrites = 0

  #of(block: number): Register {
    let register = this.#registers.get(block)
    if (register === undefined) {
      register = { floor: 0, durable: 0, acknowledged: 0, issued: 0, zeroes: undefined }
      this.#registers.set(block, register)
    }
    return register
  }

  /** The version that the next write of the block carries; `zero`: its contents will be zeroes. */
  issue(block: number, zero = false): number {
    const register = this.#of(block)
    const version = ++register.issued
    if (zero) {
      register.zeroes ??= []
      register.zeroes.push(version)
    }
    return version
  }

  /** `fua`: the acknowledgement also says that it is durable. */
  acknowledged(block: number, version: number, fua = false): void {
    const register = this.#of(block)
    register.acknowledged = Math.max(register.acknowledged, version)
    register.floor = Math.max(register.floor, version)
    if (fua) register.durable = Math.max(register.durable, version)
    if (register.acknowledged > register.durable) this.#unflushed.add(block)
    this.acknowledgedWrites++
  }

  /** Taken when a flush is asked for, given back to `flushed` when it succeeds (I3). */
  beforeFlush(): FlushSnapshot {
    const blocks = [...this.#unflushed].map((block) => ({ block, version: this.#of(block).acknowledged }))
    return { blocks, losses: this.losses }
  }

  flushed(snapshot: FlushSnapshot): void {
    if (snapshot.losses !== this.losses) return
    for (const { block, version } of snapshot.blocks) {
      const register = this.#of(block)
      register.durable = Math.max(register.durable, version)
      if (register.acknowledged <= register.durable) this.#unflushed.delete(block)
    }
  }

  /**
   * A flush succeeded for a client whose own session had this version acknowledged before: whatever was lost
   * meanwhile, it is there, or the flush would have failed (I9).
   */
  flushedBySession(block: number, version: number): void {
    const register = this.#of(block)
    register.durable = Math.max(register.durable, version)
    register.floor = Math.max(register.floor, version)
    register.acknowledged = Math.max(register.acknowledged, version)
    if (register.acknowledged <= register.durable) this.#unflushed.delete(block)
  }

  /**
   * All copies lost what was not flushed, or may have: from now on older versions are right, down to the durable one;
   * down to none with `flushedToo`, after damage to the copies that are left.
   */
  unflushedMayBeLost(flushedToo = false): void {
    this.losses++
    this.#unflushed.clear()
    if (flushedToo) this.flushedLosses++
    if (flushedToo) for (const register of this.#registers.values()) register.durable = 0
    for (const register of this.#registers.values()) {
      register.floor = Math.min(register.floor, register.durable)
      register.acknowledged = register.durable
    }
  }

  floor(block: number): number {
    return this.#of(block).floor
  }

  /** `floor` as it was when the read began. Returns what is wrong, or undefined. */
  read(block: number, version: number, floor: number): string | undefined {
    const register = this.#of(block)
    this.reads++
    if (version < floor) return `block ${block}: read version ${version} after ${floor} was seen or acknowledged`
    if (version > register.issued) return `block ${block}: read version ${version}, never written`
    register.floor = Math.max(register.floor, version)
    return undefined
  }

  /** The same for contents of zeroes: never written, or the oldest zeroing that fits. */
  readZeroes(block: number, floor: number): string | undefined {
    if (floor === 0) return this.read(block, 0, 0)
    const version = this.#of(block).zeroes?.find((zeroed) => zeroed >= floor)
    if (version !== undefined) return this.read(block, version, floor)
    return `block ${block}: read zeroes after version ${floor} was seen or acknowledged`
  }

  /** A read that may have been served before a loss of power took what it shows: nothing follows from it for later ones. */
  readBeforeLoss(block: number, version: number): string | undefined {
    this.reads++
    const { issued } = this.#of(block)
    return version > issued ? `block ${block}: read version ${version}, never written` : undefined
  }

  /** Whether zeroes in the block may be of `version` or a later one. */
  zeroedSince(block: number, version: number): boolean {
    return this.#of(block).zeroes?.some((zeroed) => zeroed >= version) ?? false
  }

  blocks(): IterableIterator<number> {
    return this.#registers.keys()
  }
}
