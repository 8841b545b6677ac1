/** The directory tree of one simulated host: names now, and names as the platter has them. */
import type { Inode } from './sim-inode.ts'
import type { SeededRandom } from './world.ts'

type Names = Map<string, Inode>
type Change = (names: Names) => void

export class SimNames {
  #names: Names = new Map()
  #platter: Names = new Map()
  /** Changes that the platter does not have yet, oldest first. */
  readonly #journal: Change[] = []
  #dropped = 0

  inodes(): IterableIterator<Inode> {
    return this.#names.values()
  }
  paths(): string[] {
    return [...this.#names.keys()].sort()
  }
  get(path: string): Inode | undefined {
    return this.#names.get(path)
  }

  /** Names in a directory, sorted. */
  list(directory: string): string[] {
    const found = new Set<string>()
    for (const path of this.#names.keys()) {
      if (path.startsWith(`${directory}/`)) found.add(path.slice(directory.length + 1).split('/')[0] ?? '')
    }
    return [...found].sort()
  }

  set(path: string, inode: Inode): void {
    this.#change((names) => names.set(path, inode))
  }

  remove(path: string): void {
    this.#change((names) => {
      for (const name of [...names.keys()]) if (name === path || name.startsWith(`${path}/`)) names.delete(name)
    })
  }

  /** Of a file or a whole directory; atomic. */
  rename(from: string, to: string): void {
    this.#change((names) => {
      for (const [name, inode] of [...names]) {
        if (name !== from && !name.startsWith(`${from}/`)) continue
        names.delete(name)
        names.set(to + name.slice(from.length), inode)
      }
    })
  }

  /** Everything up to now, for `makeDurable` later. */
  mark(): number {
    return this.#dropped + this.#journal.length
  }

  makeDurable(mark: number): void {
    while (this.#dropped < mark && this.#journal.length > 0) {
      this.#journal.shift()?.(this.#platter)
      this.#dropped++
    }
  }

  /** Any number of the newest changes is lost. */
  loseUnsynced(random: SeededRandom): void {
    this.makeDurable(this.#dropped + random.below(this.#journal.length + 1))
    this.#journal.length = 0
    this.#names = new Map(this.#platter)
  }

  #change(change: Change): void {
    change(this.#names)
    this.#journal.push(change)
  }
}
