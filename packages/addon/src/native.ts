import { createRequire } from 'node:module'
import type * as Native from '../../../native/index.d.ts'

/** The same path from `src/` and from `dist/`. */
export const native = createRequire(import.meta.url)('../../../native/build/Release/holdfast.node') as typeof Native
