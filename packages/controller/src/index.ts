export * from './actions.ts'
export { Controller } from './controller.ts'
export {
  PLACEMENT_FREE_BYTES_MIN,
  type PlacementNode,
  type PlacementRequest,
  type PlacementResult,
  placeReplicas,
  ZONE_LABEL,
} from './placement.ts'
