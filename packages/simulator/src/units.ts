/** A simulated volume is seen as units of 1 KiB, each a register whose contents say which version they are. */
export const UNIT = 1024

/** Contents that name unit and version at both ends of each unit. */
export function contentsOf(units: readonly number[], versions: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(units.length * UNIT)
  const view = new DataView(bytes.buffer)
  let start = 0
  for (const [index, unit] of units.entries()) {
    const version = versions[index] ?? 0
    view.setUint32(start, unit + 1)
    view.setUint32(start + 4, version)
    start += UNIT
    view.setUint32(start - 8, unit + 1)
    view.setUint32(start - 4, version)
  }
  return bytes
}

/** What a unit holds: its version, 0 for zeroes, undefined for what nobody wrote there. */
export function versionOf(bytes: Uint8Array, at: number, unit: number): number | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at * UNIT, UNIT)
  const [name, version] = [view.getUint32(0), view.getUint32(4)]
  if (view.getUint32(UNIT - 4) !== version || view.getUint32(UNIT - 8) !== name) return undefined
  if (name === 0 && version === 0) return 0
  return name === unit + 1 && version > 0 ? version : undefined
}
