/** The light front door: what may be imported without loading gRPC. */
export { type CoordinatorUrl, parseCoordinatorUrl } from './coordinator-url.ts'
