/** What the benchmark asks of a peer, and of Holdfast itself. */
import type { Host } from '../../bed/host.ts'

export interface StartedTarget {
  /** Engine and address for fio. */
  readonly fio: readonly string[]
  /** For other clients of NBD. */
  readonly uri?: string | undefined
  /** Roots of the trees of its server processes. Empty: there is none. */
  readonly pids: readonly number[]
  readonly version: string
}

export interface Target {
  readonly name: string
  /** 0: no server at all. */
  readonly copies: 0 | 1 | 2 | 3
  /** How the volume is built, and where a write is when it is acknowledged. */
  readonly what: string
  /** Programs it needs. */
  readonly needs: readonly string[]
  /** Debian's packages with these programs. */
  readonly packages: string
  /** Left out unless it is named in `--targets`. */
  readonly optional?: boolean | undefined
  /** Starts it with one volume of this size; the host ends it. */
  start(host: Host, bytes: number): Promise<StartedTarget>
}
