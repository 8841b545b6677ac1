export * from './session.ts'
export * from './volume-target.ts'
