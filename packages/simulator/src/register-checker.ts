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
}

export class RegisterChecker {
  readonly #registers = new Map<number, Register>()
  reads = 0
  acknowledgedWrites = 0

  #of(block: number): Register {
    let register = this.#registers.get(block)
    if (register === undefined) {
      register = { floor: 0, durable: 0, acknowledged: 0, issued: 0 }
      this.#registers.set(block, register)
    }
    return register
  }

  /** The version that the next write of the block carries. */
  issue(block: number): number {
    return ++this.#of(block).issued
  }

  acknowledged(block: number, version: number): void {
    const register = this.#of(block)
    register.acknowledged = Math.max(register.acknowledged, version)
    register.floor = Math.max(register.floor, version)
    this.acknowledgedWrites++
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

  blocks(): IterableIterator<number> {
    return this.#registers.keys()
  }
}
