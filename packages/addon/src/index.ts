/** The addon; `native/index.d.ts` says what it does. The only one of the packages that knows where it is built. */
export { allocateAligned } from './aligned-memory.ts'
export { native } from './native.ts'
