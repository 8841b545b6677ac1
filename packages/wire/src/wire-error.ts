/** What is not a message of ours, or a frame around one. */
export class WireError extends Error {
  override readonly name = 'WireError'
}
