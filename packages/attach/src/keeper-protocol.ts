/** What the node and a keeper say to each other: one JSON object a line over the unix socket `control`. */
import type { ErrorCode, FileSystem } from '@holdfast/base'

export type BackendName = 'kernel-nbd' | 'nbdfuse'

/** `spec.json` in the keeper's folder: all that a keeper is told at its start. */
export interface KeeperSpec {
  readonly backend: BackendName
  readonly namespace: string
  readonly name: string
  readonly nbdSocket: string
  readonly connections: number
  /** After that the kernel takes a silent connection for dead and sends its requests on another. */
  readonly requestTimeoutSeconds: number
  /** How long the kernel waits for a connection before it gives errors. */
  readonly deadTimeoutSeconds: number
  /** An existing kernel device whose keeper has gone. */
  readonly adoptDevice?: string | undefined
}

export type KeeperCommand =
  /** The right to the volume is ours: connections to the node may be made as long as this link lives. */
  | { readonly do: 'confirm' }
  /** The right has gone: errors from now on. */
  | { readonly do: 'lost' }
  /** Makes the device, or waits for it. */
  | { readonly do: 'device' }
  /** The device, if there is one. */
  | { readonly do: 'status' }
  | { readonly do: 'prepare'; readonly fileSystem: FileSystem; readonly mkfsOptions: readonly string[] }
  /** Gives the device up and ends; with `force` even if somebody still uses it. */
  | { readonly do: 'detach'; readonly force: boolean }

export interface KeeperReply {
  readonly id: number
  readonly error?: { readonly code: string; readonly message: string } | undefined
  readonly device?: string | undefined
  readonly prepared?: Prepared | undefined
}

export interface Prepared {
  /** As `mount -t` wants it. */
  readonly type: string
  readonly made: boolean
}

export type PrepareOutcome =
  | { readonly prepared: Prepared; readonly error?: undefined }
  | { readonly prepared?: undefined; readonly error: { readonly code: ErrorCode; readonly message: string } }

export const CONTROL_SOCKET = 'control'
export const SPEC_FILE = 'spec.json'
export const LOG_FILE = 'keeper.log'
/** The socket that nbdfuse connects to, and the folder that it is mounted on. */
export const PROXY_SOCKET = 'proxy'
export const FUSE_FOLDER = 'dev'
