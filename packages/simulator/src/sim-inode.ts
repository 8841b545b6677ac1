/** The contents of one simulated file: pages as processes see them, and what the platter holds instead. */
import type { SeededRandom } from './world.ts'

export const PAGE = 4096

export class Inode {
  readonly #pages = new Map<number, Uint8Array>()
  /** What the platter holds of pages written since they were last made durable. */
  readonly #platter = new Map<number, Uint8Array | undefined>()
  /** Pages whose write-back failed: clean for the kernel, no later sync covers them, and the platter never got them. */
  readonly #dropped = new Set<number>()
  /** Pages that the platter gives an error for until it is written there. */
  readonly #bad = new Set<number>()
  #lastWritten = 0
  size = 0

  get unsynced(): number[] {
    return [...this.#platter.keys()].filter((page) => !this.#dropped.has(page))
  }

  write(bytes: Uint8Array, position: number): void {
    let at = 0
    while (at < bytes.length) {
      const page = Math.floor((position + at) / PAGE)
      const offset = (position + at) % PAGE
      const length = Math.min(PAGE - offset, bytes.length - at)
      const part = length === bytes.length ? bytes : bytes.subarray(at, at + length)
      if (length === PAGE) this.#replace(page, part)
      else this.#writable(page).set(part, offset)
      at += length
    }
    this.size = Math.max(this.size, position + bytes.length)
  }

  /** A whole page: written into a fresh one, which need not be zeroed before. */
  #replace(page: number, bytes: Uint8Array): void {
    this.#dropped.delete(page)
    this.#lastWritten = page
    const old = this.#pages.get(page)
    if (this.#platter.has(page)) {
      if (old !== undefined) return old.set(bytes)
    } else this.#platter.set(page, old)
    this.#pages.set(page, new Uint8Array(bytes))
  }

  /** The page to write into: a copy where the platter still needs the old one. */
  #writable(page: number): Uint8Array {
    this.#dropped.delete(page)
    this.#lastWritten = page
    const old = this.#pages.get(page)
    if (old !== undefined && this.#platter.has(page)) return old
    if (!this.#platter.has(page)) this.#platter.set(page, old)
    const fresh = old === undefined ? new Uint8Array(PAGE) : new Uint8Array(old)
    this.#pages.set(page, fresh)
    return fresh
  }

  /** False when the file ends before. */
  read(target: Uint8Array, targetOffset: number, length: number, position: number): boolean {
    if (position + length > this.size) return false
    let at = 0
    while (at < length) {
      const page = this.#pages.get(Math.floor((position + at) / PAGE))
      const offset = (position + at) % PAGE
      const count = Math.min(PAGE - offset, length - at)
      if (page === undefined) target.fill(0, targetOffset + at, targetOffset + at + count)
      else target.set(count === PAGE ? page : page.subarray(offset, offset + count), targetOffset + at)
      at += count
    }
    return true
  }

  makeDurable(pages: readonly number[]): void {
    for (const page of pages) {
      if (this.#dropped.has(page)) continue
      if (this.#platter.delete(page)) this.#bad.delete(page)
    }
  }

  /** A sync failed: as Linux does, it says so once, reads go on to show the pages, and only a new write dirties them. */
  dropUnsynced(pages: readonly number[]): void {
    for (const page of pages) if (this.#platter.has(page)) this.#dropped.add(page)
  }

  /** Any subset of what is not durable is lost. */
  loseUnsynced(random: SeededRandom): void {
    for (const [page, old] of this.#platter) {
      if (!this.#dropped.has(page) && random.chance(0.5)) {
        this.#bad.delete(page)
        continue
      }
      if (old === undefined) this.#pages.delete(page)
      else this.#pages.set(page, old)
    }
    this.#platter.clear()
    this.#dropped.clear()
  }

  /** Whether a bad sector lies there that the page cache does not hide. */
  isBad(length: number, position: number): boolean {
    if (this.#bad.size === 0) return false
    for (let page = Math.floor(position / PAGE); page * PAGE < position + length; page++) {
      if (this.#bad.has(page) && !this.#platter.has(page)) return true
    }
    return false
  }

  /** Its disk gives everything again. */
  heal(): void {
    this.#bad.clear()
  }

  /** Makes one page a bad sector; the page, or undefined where there is none. */
  spoil(random: SeededRandom): number | undefined {
    // Where a log ends there is most to be mistaken about.
    const page = random.chance(0.5) ? Math.max(0, this.#lastWritten - random.below(4)) : this.#pageAtRest(random)
    if (page === undefined || !this.#pages.has(page)) return undefined
    this.#bad.add(page)
    return page
  }

  /** Of those that the page cache need not keep. */
  #pageAtRest(random: SeededRandom): number | undefined {
    const atRest = [...this.#pages.keys()].filter((page) => !this.#platter.has(page))
    return atRest[random.below(Math.max(1, atRest.length))]
  }

  /** Flips one bit of one page (that one, if given) on the platter; the page, or undefined where there is none. */
  flipBit(random: SeededRandom, wanted?: number): number | undefined {
    const page = wanted ?? this.#pageAtRest(random)
    const old = page === undefined ? undefined : this.#pages.get(page)
    if (page === undefined || old === undefined) return undefined
    const fresh = new Uint8Array(old)
    const at = random.below(PAGE)
    fresh[at] = (fresh[at] ?? 0) ^ (1 << random.below(8))
    this.#pages.set(page, fresh)
    return page
  }
}
