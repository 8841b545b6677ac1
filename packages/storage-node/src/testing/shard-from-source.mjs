/** The main program of a shard where nothing is built: a thread does not inherit the loader of TypeScript. */
import { register } from 'tsx/esm/api'

register()
await import('../shard-main.ts')
