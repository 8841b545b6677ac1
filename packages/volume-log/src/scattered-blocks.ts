/**
 * Entries of blocks that lie far from each other: an extendible hash table (Fagin et al., 1979) whose buckets have the size
 * of map pages, so that they are written to checkpoints and read back like those.
 *
 * Slot `i` of a bucket is two words: the block number and its entry, 0 for a free slot. A bucket grows by being
 * split, so no insert costs more than that and the doubling of a list of buckets.
 *
 * A block of a large volume is in no cache, and nearly all that an access costs is to wait for memory: so a bucket is a
 * number and a part of a chunk, what is kept of each lies in arrays of words, and a bucket is two steps from its hash.
 *
 * Invariants: every bucket has a free slot, so each probe ends; a key lies in the bucket that its hash's first bits
 * name, no free slot between it and the slot that its last bits name; a bucket is listed, free or replaced, and a
 * frozen one is never changed.
 */
import { assert } from '@holdfast/base'

const BUCKET_WORDS = 1024
const SLOTS = BUCKET_WORDS / 2
const SLOT_MASK = SLOTS - 1
/** Linear probing gets slow beyond. */
const USED_MAX = Math.floor(SLOTS * 0.8)
/** Buckets listed at most, by their power of two: seventy million blocks; and doubling the list is a matter of a few ms. */
const DEPTH_MAX = 18
/** Buckets of a chunk, by their power of two. The first chunk grows up to that, so that few blocks take little. */
const CHUNK_SHIFT = 8
const CHUNK_BUCKETS = 2 ** CHUNK_SHIFT

export class ScatteredBlocks {
  readonly #seed: number
  readonly #depthMax: number
  /** Buckets by the first `#depth` bits of the hash; one of less depth stands at several places. */
  #places = new Uint32Array(1)
  #depth = 0
  #used = 0
  readonly #chunks: Uint32Array[] = [new Uint32Array(BUCKET_WORDS)]
  #bucketCount = 1
  /** By bucket, each: blocks in it, first bits of the hash that its keys share, whether a snapshot holds it. */
  #usedOf = new Uint16Array(1)
  #depthOf = new Uint8Array(1)
  #frozen = new Uint8Array(1)
  #free: number[] = []
  /** Those that a snapshot was made of. */
  #held: number[] = []
  /** Frozen ones that changed copies have taken the place of: free once the snapshot is released. */
  #replaced: number[] = []

  /** `seed`: clients that know it can choose blocks that share a bucket. */
  constructor(seed: number, depthMax: number = DEPTH_MAX) {
    this.#seed = seed >>> 0
    this.#depthMax = depthMax
  }

  get size(): number {
    return this.#used
  }

  /** Memory of all buckets, in use or not. */
  get bucketBytes(): number {
    return this.#chunks.reduce((sum, { byteLength }) => sum + byteLength, 0)
  }

  /** The entry of a block (below 2^32), 0 where there is none. */
  get(block: number): number {
    const hash = this.#hash(block)
    const bucket = this.#bucketOf(hash)
    const words = this.#chunkOf(bucket)
    return words[slotOf(words, startOf(bucket), block, hash) + 1] as number
  }

  /** Returns the entry there was, or 0; -1 where there is no room, and nothing has changed. */
  put(block: number, entry: number): number {
    assert(entry > 0, 'a scattered block needs an entry', { block })
    const hash = this.#hash(block)
    for (;;) {
      const bucket = this.#bucketOf(hash)
      const words = this.#chunkOf(bucket)
      const at = slotOf(words, startOf(bucket), block, hash)
      const old = words[at + 1] as number
      if (old !== 0 || (this.#usedOf[bucket] as number) < USED_MAX) {
        const own = this.#thawed(bucket, hash)
        const ownWords = own === bucket ? words : this.#chunkOf(own)
        const ownAt = at - startOf(bucket) + startOf(own)
        ownWords[ownAt] = block
        ownWords[ownAt + 1] = entry
        if (old === 0) this.#count(own, 1)
        return old
      }
      if (!this.#split(bucket, hash)) return -1
    }
  }

  /** Returns the entry there was, or 0. */
  remove(block: number): number {
    const hash = this.#hash(block)
    const bucket = this.#bucketOf(hash)
    const words = this.#chunkOf(bucket)
    const at = slotOf(words, startOf(bucket), block, hash)
    const old = words[at + 1] as number
    if (old === 0) return 0
    const own = this.#thawed(bucket, hash)
    this.#close(own, (at - startOf(bucket)) / 2)
    this.#count(own, -1)
    return old
  }

  /** Every bucket that holds something, once; each stays as it is until it is thawed, whatever is put or removed. */
  freeze(): Uint32Array[] {
    this.#held = []
    let previous = -1
    // A bucket's places are next to each other.
    for (const bucket of this.#places) {
      if (bucket !== previous && (this.#usedOf[bucket] as number) > 0) this.#held.push(bucket)
      previous = bucket
    }
    for (const bucket of this.#held) this.#frozen[bucket] = 1
    return this.#held.map((bucket) => this.#wordsOf(bucket))
  }

  /** The frozen buckets `first` to `end - 1` may be changed. */
  thaw(first: number, end: number): void {
    const held = Math.min(end, this.#held.length)
    for (let i = first; i < held; i++) this.#frozen[this.#held[i] as number] = 0
  }

  /** Nobody looks at frozen buckets any more. */
  release(): void {
    this.thaw(0, this.#held.length)
    this.#held = []
    for (const bucket of this.#replaced) this.#free.push(bucket)
    this.#replaced = []
  }

  /**
   * Moves buckets, so many at most, to where others are free, and gives back the chunks behind them once they are. A snapshot
   * that is held for long, since a flush comes before it is written, has nearly all buckets of a busy table copied: as many
   * are free from then on, and the next one wants them, unless the volume is at rest.
   */
  trim(bucketsMax: number): void {
    if (this.#held.length > 0) return
    const listed = this.#bucketCount - this.#free.length
    const chunkCount = Math.ceil(listed / CHUNK_BUCKETS)
    if (chunkCount === this.#chunks.length) return
    const holes = this.#free.filter((bucket) => bucket < listed)
    const free = this.#free.filter((bucket) => bucket >= listed)
    const end = Math.max(0, holes.length - bucketsMax)
    for (let place = 0; holes.length > end; ) {
      assert(place < this.#places.length, 'fewer buckets are listed than are not free', { listed })
      const bucket = this.#places[place] as number
      const next = place + 2 ** (this.#depth - (this.#depthOf[bucket] as number))
      if (bucket >= listed) {
        this.#places.fill(this.#copied(bucket, holes.pop() as number), place, next)
        free.push(bucket)
      }
      place = next
    }
    this.#free = [...holes, ...free]
    if (holes.length > 0) return
    this.#free = []
    this.#bucketCount = listed
    this.#chunks.length = chunkCount
  }

  #count(bucket: number, change: number): void {
    this.#usedOf[bucket] = (this.#usedOf[bucket] as number) + change
    this.#used += change
  }

  /** A bijection (a finalizer in the manner of MurmurHash3): two blocks never share a whole hash. */
  #hash(block: number): number {
    let hash = (block ^ this.#seed) >>> 0
    hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b)
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35)
    return (hash ^ (hash >>> 16)) >>> 0
  }

  #bucketOf(hash: number): number {
    return this.#places[firstBits(hash, this.#depth)] as number
  }

  #chunkOf(bucket: number): Uint32Array {
    return this.#chunks[bucket >>> CHUNK_SHIFT] as Uint32Array
  }

  /** The bucket, or where a snapshot holds it a copy that has taken its place. */
  #thawed(bucket: number, hash: number): number {
    if (this.#frozen[bucket] === 0) return bucket
    const copy = this.#copied(bucket, this.#newBucket(this.#depthOf[bucket] as number))
    const [first, end] = this.#placesOf(bucket, hash)
    this.#places.fill(copy, first, end)
    this.#replaced.push(bucket)
    return copy
  }

  /** Makes bucket `to` the same, and returns it. */
  #copied(bucket: number, to: number): number {
    this.#chunkOf(to).set(this.#wordsOf(bucket), startOf(to))
    this.#usedOf[to] = this.#usedOf[bucket] as number
    this.#depthOf[to] = this.#depthOf[bucket] as number
    return to
  }

  #wordsOf(bucket: number): Uint32Array {
    return this.#chunkOf(bucket).subarray(startOf(bucket), startOf(bucket) + BUCKET_WORDS)
  }

  /** Its first place and the one behind its last. */
  #placesOf(bucket: number, hash: number): readonly [number, number] {
    const depth = this.#depthOf[bucket] as number
    const count = 2 ** (this.#depth - depth)
    const first = firstBits(hash, depth) * count
    return [first, first + count]
  }

  /** Its words are those of whoever had it before. */
  #newBucket(depth: number): number {
    const bucket = this.#free.pop() ?? this.#grown()
    this.#frozen[bucket] = 0
    this.#usedOf[bucket] = 0
    this.#depthOf[bucket] = depth
    return bucket
  }

  #grown(): number {
    const bucket = this.#bucketCount++
    if (bucket >= this.#usedOf.length) {
      this.#usedOf = doubled(this.#usedOf, Uint16Array)
      this.#depthOf = doubled(this.#depthOf, Uint8Array)
      this.#frozen = doubled(this.#frozen, Uint8Array)
    }
    if (bucket >= CHUNK_BUCKETS) {
      if (bucket % CHUNK_BUCKETS === 0) this.#chunks.push(new Uint32Array(CHUNK_BUCKETS * BUCKET_WORDS))
      return bucket
    }
    const first = this.#chunkOf(0)
    // A snapshot keeps the shorter one.
    if (startOf(bucket) === first.length) this.#chunks[0] = doubled(first, Uint32Array)
    return bucket
  }

  /** Parts a full bucket by the next bit of its keys' hashes. False where no more are listed. */
  #split(bucket: number, hash: number): boolean {
    const depth = this.#depthOf[bucket] as number
    if (depth === this.#depthMax) return false
    if (depth === this.#depth) this.#doublePlaces()
    const halves = [this.#newBucket(depth + 1), this.#newBucket(depth + 1)] as const
    for (const half of halves) this.#wordsOf(half).fill(0)
    const words = this.#wordsOf(bucket)
    for (let i = 0; i < BUCKET_WORDS; i += 2) {
      const entry = words[i + 1] as number
      if (entry === 0) continue
      const key = words[i] as number
      const keyHash = this.#hash(key)
      const half = halves[(firstBits(keyHash, depth + 1) & 1) as 0 | 1]
      const halfWords = this.#chunkOf(half)
      const at = slotOf(halfWords, startOf(half), key, keyHash)
      halfWords[at] = key
      halfWords[at + 1] = entry
      this.#usedOf[half] = (this.#usedOf[half] as number) + 1
    }
    const [first, end] = this.#placesOf(bucket, hash)
    const middle = (first + end) / 2
    this.#places.fill(halves[0], first, middle).fill(halves[1], middle, end)
    if (this.#frozen[bucket] === 1) this.#replaced.push(bucket)
    else this.#free.push(bucket)
    return true
  }

  #doublePlaces(): void {
    const before = this.#places
    const after = new Uint32Array(before.length * 2)
    for (let i = 0; i < before.length; i++) after.fill(before[i] as number, i * 2, i * 2 + 2)
    this.#places = after
    this.#depth++
  }

  /** Frees slot `at` and moves up what would not be found behind it. */
  #close(bucket: number, at: number): void {
    const words = this.#wordsOf(bucket)
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

/** A shift by 32 is none. */
function firstBits(hash: number, count: number): number {
  return (hash >>> 1) >>> (31 - count)
}

/** Its first word in its chunk. */
function startOf(bucket: number): number {
  return (bucket % CHUNK_BUCKETS) * BUCKET_WORDS
}

/** The word in a chunk where the block is, or the free slot where it would be, in the bucket that begins at `start`. */
function slotOf(words: Uint32Array, start: number, block: number, hash: number): number {
  let at = start + (hash & SLOT_MASK) * 2
  while (words[at + 1] !== 0 && words[at] !== block) at = start + ((at + 2) & (BUCKET_WORDS - 1))
  return at
}

function doubled<Words extends Uint8Array | Uint16Array | Uint32Array>(
  words: Words,
  Kind: new (length: number) => Words,
): Words {
  const more = new Kind(words.length * 2)
  more.set(words)
  return more
}
