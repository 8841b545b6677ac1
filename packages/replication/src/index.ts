export * from './election.ts'
export * from './primary.ts'
export * from './serving-permission.ts'
