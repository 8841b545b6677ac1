/**
 * Names of hosts to addresses, one question per name at a time. A question can't be taken back, a resolver that does
 * not answer is asked for up to 20 s, and Node asks about few names at once: those of a host that is away, asked
 * again with every dial, would keep the living from being found.
 */
import { lookup as systemLookup, type LookupAddress, type LookupAllOptions } from 'node:dns'
import type { LookupFunction } from 'node:net'

/** What a slow resolver said before is used after this time; who is met there has to say the right name (I8b). */
const PATIENCE_MS = 500

type Found = (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void
export type Resolve = (name: string, options: LookupAllOptions, found: Found) => void

/** For the option `lookup` of a connection. */
export function sharedLookup(resolve: Resolve = systemLookup): LookupFunction {
  const asked = new Map<string, Found[]>()
  const known = new Map<string, LookupAddress[]>()

  const ask = (name: string, found: Found): void => {
    const waiting = asked.get(name)
    if (waiting !== undefined) {
      waiting.push(found)
      return
    }
    const everybody = [found]
    asked.set(name, everybody)
    resolve(name, { all: true }, (error, addresses) => {
      asked.delete(name)
      if (error === null) known.set(name, addresses)
      for (const one of everybody) one(error, addresses)
    })
  }

  return (name, options, callback) => {
    let answered = false
    const answer: Found = (error, addresses) => {
      if (answered) return
      answered = true
      clearTimeout(late)
      const [first] = addresses ?? []
      if (options.all === true) callback(error, addresses)
      else callback(error, first?.address ?? '', first?.family)
    }
    const late = setTimeout(() => {
      const before = known.get(name)
      if (before !== undefined) answer(null, before)
    }, PATIENCE_MS)
    ask(name, answer)
  }
}
