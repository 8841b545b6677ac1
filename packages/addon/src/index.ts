/** The addon; `native/index.d.ts` says what it does. The only one of the packages that knows where it is built. */
import { createRequire } from 'node:module'
import type * as Native from '../../../native/index.d.ts'

/** The same path from `src/` and from `dist/`. */
export const native = createRequire(import.meta.url)('../../../native/build/Release/holdfast.node') as typeof Native
