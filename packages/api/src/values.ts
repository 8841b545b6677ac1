/** How sizes, names, labels and failure modes are written, and sentences for those that are not. */
import { BLOCK_BYTES, type FailureMode, HoldfastError } from '@holdfast/base'

export const DEFAULT_NAMESPACE = 'default'
export const VOLUME_BYTES_MIN = 1024 ** 2
export const VOLUME_BYTES_MAX = 64 * 1024 ** 4
/** More copies cost every write and help nobody. */
export const REPLICAS_MAX = 8

const NAMES = {
  /** Docker names what nobody named by 64 digits, and allows capitals. */
  'volume name': { pattern: /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/, rule: '1 to 128 of a-z, A-Z, 0-9' },
  namespace: { pattern: /^[a-z0-9][a-z0-9_.-]{0,62}$/, rule: '1 to 63 of a-z, 0-9' },
} as const
/** Hosts' names have capitals here and there. */
const NODE_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/
const LABEL_KEY = /^[A-Za-z0-9][A-Za-z0-9_./-]{0,62}$/
const LABEL_VALUE_CHARS_MAX = 255
const LABELS_MAX = 64

const bad = (message: string): HoldfastError => new HoldfastError('HF_BAD_REQUEST', message)

/** The text as it may stand in a message: quoted and not endless. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
}

/** A volume's or a namespace's name; it is part of keys, URLs and export names. */
export function checkName(what: 'volume name' | 'namespace', name: string): string {
  const { pattern, rule } = NAMES[what]
  if (pattern.test(name) && !name.includes('..')) return name
  throw bad(
    `${quoted(name)} is no ${what}: use ${rule}, '_', '.' and '-', beginning with a letter or digit, without '..'`,
  )
}

export function checkNodeName(name: string): string {
  if (NODE_NAME.test(name) && !name.includes('..')) return name
  throw bad(
    `${quoted(name)} is no node name: use 1 to 63 of letters, digits, '_', '.' and '-', beginning with a letter or digit, without '..'`,
  )
}

/** `name` or `namespace/name`; without a namespace `fallback` counts. */
export function parseVolumeName(
  text: string,
  fallback: string = DEFAULT_NAMESPACE,
): { namespace: string; name: string } {
  const parts = text.split('/')
  if (parts.length > 2) {
    throw bad(`${quoted(text)} is no volume: write NAME or NAMESPACE/NAME`)
  }
  const [namespace, name] = parts.length === 2 ? parts : [fallback, text]
  return {
    namespace: checkName('namespace', namespace ?? ''),
    name: checkName('volume name', name ?? ''),
  }
}

const UNIT_POWERS: Readonly<Record<string, number>> = { '': 0, k: 1, m: 2, g: 3, t: 4 }

/**
 * A volume's size in bytes, rounded up to whole blocks. `1GiB` and `1G` are 2^30, `1GB` is 10^9, a bare
 * number is bytes. Throws HF_BAD_REQUEST for anything else and outside 1 MiB to 64 TiB.
 */
export function parseSize(text: string): number {
  const match = /^(\d{1,20}(?:\.\d{1,9})?) ?(?:([kmgt]?)(i?)(b?))$/i.exec(text.trim())
  const [, digits = '', unit = '', binary = '', byte = ''] = match ?? []
  const power = UNIT_POWERS[unit.toLowerCase()] ?? 0
  if (match === null || (power === 0 && (binary !== '' || digits.includes('.')))) {
    throw bad(
      `${quoted(text)} is no size: write bytes or a number with a unit, such as 10GiB or 500MB`,
    )
  }
  const base = byte !== '' && binary === '' ? 1000 : 1024
  return checkSize(Number(digits) * base ** power, text)
}

export function checkSize(bytes: number, text: string = String(bytes)): number {
  const rounded = Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES
  if (!(rounded >= VOLUME_BYTES_MIN)) {
    throw bad(`the size ${text} is too small: a volume has at least 1MiB`)
  }
  if (rounded > VOLUME_BYTES_MAX) {
    throw bad(`the size ${text} is too large: a volume has at most 64TiB`)
  }
  return rounded
}

/** `1.5 GiB`: for people, three digits at the most. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let value = bytes
  let unit = 0
  while (value >= 1023.5 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  const digits = value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2
  return `${Number(value.toFixed(digits))} ${units[unit] ?? ''}`
}

export function checkReplicaCount(count: number): number {
  if (Number.isInteger(count) && count >= 1 && count <= REPLICAS_MAX) return count
  throw bad(
    `${count} is no number of replicas: it is from 1 to ${REPLICAS_MAX} and counts all copies, the primary's included`,
  )
}

export function parseFailureMode(text: string): FailureMode {
  if (text === 'hard' || text === 'alwayson') return { kind: text }
  const inSyncMin = Number(/^threshold=(\d{1,2})$/.exec(text)?.[1] ?? Number.NaN)
  if (inSyncMin >= 1) return { kind: 'threshold', inSyncMin }
  throw bad(
    `${quoted(text)} is no failure mode: it is hard, alwayson or threshold=N, as in threshold=2`,
  )
}

export function formatFailureMode(mode: FailureMode): string {
  return mode.kind === 'threshold' ? `threshold=${mode.inSyncMin}` : mode.kind
}

export function checkLabels(labels: Readonly<Record<string, string>>): Record<string, string> {
  const entries = Object.entries(labels)
  if (entries.length > LABELS_MAX)
    throw bad(`there are more than ${LABELS_MAX} labels: leave some out`)
  for (const [key, value] of entries) {
    if (!LABEL_KEY.test(key)) {
      throw bad(
        `${quoted(key)} is no label name: use 1 to 63 of letters, digits, '_', '.', '/' and '-', beginning with a letter or digit`,
      )
    }
    if (value.length > LABEL_VALUE_CHARS_MAX) {
      throw bad(`the label ${key} is longer than ${LABEL_VALUE_CHARS_MAX} characters: shorten it`)
    }
  }
  return Object.fromEntries(entries)
}

/** `key=value` texts, each key once. */
export function parseLabels(texts: readonly string[]): Record<string, string> {
  const labels = new Map<string, string>()
  for (const text of texts) {
    const at = text.indexOf('=')
    if (at < 1) throw bad(`${quoted(text)} is no label: write key=value, as in zone=a`)
    const key = text.slice(0, at)
    if (labels.has(key)) throw bad(`the label ${key} is given twice: give it once`)
    labels.set(key, text.slice(at + 1))
  }
  return checkLabels(Object.fromEntries(labels))
}
