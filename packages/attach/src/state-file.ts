/** `attachments.json`: what is attached and by whom it is used, across restarts of the node process. */
import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { AttachmentRight } from '@holdfast/base'
import type { BackendName } from './keeper-protocol.ts'

export interface AttachmentRecord {
  readonly namespace: string
  readonly name: string
  /** By which claim it was attached; a release from before did not note it. */
  readonly right?: AttachmentRight | undefined
  readonly backend: BackendName
  readonly device: string
  /** Undefined: attached only. */
  readonly path: string | undefined
  /** The path was asked for: it is not ours to remove. */
  readonly directory: boolean
  readonly readOnly: boolean
  /** Attached by `attach`, not only for a mount. */
  readonly pinned: boolean
  readonly mountIds: readonly string[]
}

interface StateFile {
  readonly version: 1
  readonly bootId: string
  readonly attachments: readonly AttachmentRecord[]
}

export class AttachmentState {
  readonly #path: string
  readonly #bootId: string
  #saving: Promise<void> = Promise.resolve()

  constructor(stateDir: string, bootId: string) {
    this.#path = join(stateDir, 'attachments.json')
    this.#bootId = bootId
  }

  /** What was there; `current` says whether the host has not been rebooted since. */
  async load(): Promise<{ readonly current: boolean; readonly attachments: readonly AttachmentRecord[] }> {
    let text: string
    try {
      text = await readFile(this.#path, 'utf8')
    } catch {
      return { current: true, attachments: [] }
    }
    try {
      const state = JSON.parse(text) as StateFile
      return { current: state.bootId === this.#bootId, attachments: state.attachments }
    } catch {
      // Renamed into place only when whole, so this is damage of another kind. Keepers are found by their
      // folders.
      return { current: false, attachments: [] }
    }
  }

  /** Durable when it resolves. Calls are in order. */
  save(attachments: readonly AttachmentRecord[]): Promise<void> {
    const state: StateFile = { version: 1, bootId: this.#bootId, attachments }
    const text = `${JSON.stringify(state, null, 2)}\n`
    const saved = this.#saving.then(() => this.#write(text))
    this.#saving = saved.catch(() => undefined)
    return saved
  }

  async #write(text: string): Promise<void> {
    const folder = dirname(this.#path)
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const file = await open(`${this.#path}.new`, 'w', 0o600)
    try {
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(`${this.#path}.new`, this.#path)
    const directory = await open(folder, 'r')
    await directory.sync().finally(() => directory.close())
  }
}
