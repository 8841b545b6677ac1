/**
 * Branded numbers and names, so that two quantities of different kinds can't be swapped.
 *
 * A brand exists only in the type checker: at run time every one of these is a plain number or
 * string and costs nothing.
 */

declare const brand: unique symbol
type Branded<T, Name extends string> = T & { readonly [brand]: Name }

/** Position in a volume's log, in 4 KiB blocks from 0. Contiguous: every block of the log has one. */
export type Lsn = Branded<number, 'Lsn'>
/** Number of a reign, given by the coordinator; the fencing token of every message. 0 = none yet. */
export type Epoch = Branded<number, 'Epoch'>
/** Milliseconds on a node's own monotonic clock, which stands still while the machine sleeps. Never compared between nodes. */
export type Instant = Branded<number, 'Instant'>
/** Milliseconds since the machine was booted, those asleep included; for what ends meanwhile (I8). Never compared between nodes. */
export type BootInstant = Branded<number, 'BootInstant'>
/** Name of a storage node: unique in the cluster, chosen by the operator. */
export type NodeId = Branded<string, 'NodeId'>
/** 16 hexadecimal digits, drawn at creation; never reused, unlike the volume's name. */
export type VolumeId = Branded<string, 'VolumeId'>
/** Drawn anew at each start of a node process; tells a restarted process from the old one. */
export type Incarnation = Branded<string, 'Incarnation'>
/** 48-bit number that names one frontend session for duplicate detection. */
export type SessionId = Branded<number, 'SessionId'>

/** A place in one history: `lsn` as the primary of `epoch` counted it. */
export interface LogPosition {
  readonly epoch: Epoch
  readonly lsn: Lsn
}

/** Bytes in a logical block and in a log position. */
export const BLOCK_BYTES = 4096
export const BLOCK_SHIFT = 12

/**
 * What a field is made with, before its constructor gives it its first value, if numbers of more than 31 bits or
 * computed ones will come. V8 stores small whole numbers in another way than all others, and gives a field one way at a
 * time: in one made with 0, the first of the others changes the hidden class of its object, and all compiled code that
 * knows the object is thrown away, perhaps long after the start. A fraction is one of the others.
 */
export const WIDE = 0.5

export const lsn = (value: number): Lsn => value as Lsn
export const epoch = (value: number): Epoch => value as Epoch
export const instant = (value: number): Instant => value as Instant
export const bootInstant = (value: number): BootInstant => value as BootInstant
export const nodeId = (value: string): NodeId => value as NodeId
export const volumeId = (value: string): VolumeId => value as VolumeId
export const incarnation = (value: string): Incarnation => value as Incarnation
export const sessionId = (value: number): SessionId => value as SessionId

/** The instant `ms` milliseconds after `at`. */
export const after = <T extends Instant | BootInstant>(at: T, ms: number): T => (at + ms) as T
/** The log position `blocks` after `at`. */
export const lsnAfter = (at: Lsn, blocks: number): Lsn => (at + blocks) as Lsn
export const lsnMin = (a: Lsn, b: Lsn): Lsn => (a < b ? a : b)
export const lsnMax = (a: Lsn, b: Lsn): Lsn => (a > b ? a : b)
