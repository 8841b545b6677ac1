/**
 * Entries of blocks that lie far from each other: an extendible hash table (Fagin et al., 1979) whose buckets have the size
 * and the look of map pages, so that they are copied on write, written to checkpoints and read back like those.
 *
 * Slot `i` of a bucket is two words: the block number and its entry, 0 for a free slot. A bucket grows by being
 * split, so no insert costs more than that and the doubling of a list of buckets.
 *
 * Invariants: every bucket has a free slot, so each probe ends; a key lies in the bucket that its hash's first bits
 * name, no free slot between it and the slot that its last bits name.
 */
import { assert } from '@holdfast/base'

const BUCKET_WORDS = 1024
const SLOTS = BUCKET_WORDS / 2
const SLOT_MASK = SLOTS - 1
/** Linear probing gets slow beyond. */
const USED_MAX = Math.floor(SLOTS * 0.8)
/** Buckets listed at most, by their power of two: seventy million blocks; and doubling the list is a matter of a few ms. */
const DEPTH_MAX = 18

interface Bucket {
  words: Uint32Array
  used: number
  /** First bits of the hash that its keys share. */
  readonly depth: number
}

const emptyBucket = (depth: number): Bucket => ({ words: new Uint32Array(BUCKET_WORDS), used: 0, depth })

export class ScatteredBlocks {
  readonly #seed: number
  readonly #thaw: (words: Uint32Array) => Uint32Array
  readonly #depthMax: number
  /** By the first `#depth` bits of the hash; a bucket of less depth stands at several places. */
  #buckets: Bucket[] = [emptyBucket(0)]
  #depth = 0
  #used = 0

  /** `seed`: clients that know it can choose blocks that share a bucket. `thaw`: returns what may be changed in its place. */
  constructor(seed: number, thaw: (words: Uint32Array) => Uint32Array, depthMax: number = DEPTH_MAX) {
    this.#seed = seed >>> 0
    this.#depthMax = depthMax
    this.#thaw = thaw
  }

  get size(): number {
    return this.#used
  }

  /** The entry of a block (below 2^32), 0 where there is none. */
  get(block: number): number {
    const hash = this.#hash(block)
    const { words } = this.#bucketOf(hash)
    const at = slotOf(words, block, hash)
    return words[at * 2 + 1] as number
  }

  /** Returns the entry there was, or 0; -1 where there is no room, and nothing has changed. */
  put(block: number, entry: number): number {
    assert(entry > 0, 'a scattered block needs an entry', { block })
    const hash = this.#hash(block)
    for (;;) {
      const bucket = this.#bucketOf(hash)
      const at = slotOf(bucket.words, block, hash)
      const old = bucket.words[at * 2 + 1] as number
      if (old !== 0 || bucket.used < USED_MAX) {
        const words = this.#writable(bucket)
        words[at * 2] = block
        words[at * 2 + 1] = entry
        if (old === 0) this.#count(bucket, 1)
        return old
      }
      if (!this.#split(bucket, hash)) return -1
    }
  }

  /** Returns the entry there was, or 0. */
  remove(block: number): number {
    const hash = this.#hash(block)
    const bucket = this.#bucketOf(hash)
    const at = slotOf(bucket.words, block, hash)
    const old = bucket.words[at * 2 + 1] as number
    if (old === 0) return 0
    this.#close(this.#writable(bucket), at)
    this.#count(bucket, -1)
    if (this.#used === 0) {
      this.#buckets = [emptyBucket(0)]
      this.#depth = 0
    }
    return old
  }

  /** Every bucket that holds something, once. */
  *filled(): Generator<Uint32Array> {
    let previous: Bucket | undefined
    // A bucket's places are next to each other.
    for (const bucket of this.#buckets) {
      if (bucket !== previous && bucket.used > 0) yield bucket.words
      previous = bucket
    }
  }

  #count(bucket: Bucket, change: number): void {
    bucket.used += change
    this.#used += change
  }

  /** A bijection (a finalizer in the manner of MurmurHash3): two blocks never share a whole hash. */
  #hash(block: number): number {
    let hash = (block ^ this.#seed) >>> 0
    hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b)
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35)
    return (hash ^ (hash >>> 16)) >>> 0
  }

  #bucketOf(hash: number): Bucket {
    // A shift by 32 is none.
    return this.#buckets[this.#depth === 0 ? 0 : hash >>> (32 - this.#depth)] as Bucket
  }

  #writable(bucket: Bucket): Uint32Array {
    bucket.words = this.#thaw(bucket.words)
    return bucket.words
  }

  /** Parts a full bucket by the next bit of its keys' hashes. False where no more are listed. */
  #split(bucket: Bucket, hash: number): boolean {
    if (bucket.depth === this.#depthMax) return false
    if (bucket.depth === this.#depth) {
      const doubled: Bucket[] = []
      for (const one of this.#buckets) doubled.push(one, one)
      this.#buckets = doubled
      this.#depth++
    }
    const depth = bucket.depth + 1
    const halves = [emptyBucket(depth), emptyBucket(depth)] as const
    const { words } = bucket
    for (let i = 0; i < BUCKET_WORDS; i += 2) {
      const entry = words[i + 1] as number
      if (entry === 0) continue
      const key = words[i] as number
      const keyHash = this.#hash(key)
      const half = halves[((keyHash >>> (32 - depth)) & 1) as 0 | 1]
      const at = slotOf(half.words, key, keyHash)
      half.words[at * 2] = key
      half.words[at * 2 + 1] = entry
      half.used++
    }
    const places = 2 ** (this.#depth - bucket.depth)
    const first = bucket.depth === 0 ? 0 : (hash >>> (32 - bucket.depth)) * places
    for (let i = 0; i < places; i++) this.#buckets[first + i] = halves[i < places / 2 ? 0 : 1]
    return true
  }

  /** Frees a slot and moves up what would not be found behind it. */
  #close(words: Uint32Array, at: number): void {
    let free = at
    for (let next = (at + 1) & SLOT_MASK; words[next * 2 + 1] !== 0; next = (next + 1) & SLOT_MASK) {
      const key = words[next * 2] as number
      const home = this.#hash(key) & SLOT_MASK
      if (((next - home) & SLOT_MASK) < ((next - free) & SLOT_MASK)) continue
      words[free * 2] = key
      words[free * 2 + 1] = words[next * 2 + 1] as number
      free = next
    }
    words[free * 2] = 0
    words[free * 2 + 1] = 0
  }
}

/** Where the block is, or the free slot where it would be. */
function slotOf(words: Uint32Array, block: number, hash: number): number {
  let at = hash & SLOT_MASK
  while (words[at * 2 + 1] !== 0 && words[at * 2] !== block) at = (at + 1) & SLOT_MASK
  return at
}
