export { type NbdCounters, newNbdCounters } from './counters.ts'
export { defaultLimits, type NbdLimits } from './limits.ts'
export type { NbdListener } from './listeners.ts'
export { type NbdServer, type NbdServerOptions, startNbdServer } from './server.ts'
