/**
 * `prepare-main.js DEVICE FILESYSTEM FOLDER MKFS-OPTION…` prints what `prepareFileSystem` returned, or its
 * error, as JSON. A process of its own: had the keeper a thread that waits for the device that it serves,
 * killing it would never close its connections, and nobody would ever get an answer.
 */
import { type FileSystem, isHoldfastError } from '@holdfast/base'
import { prepareFileSystem } from './file-system.ts'
import type { PrepareOutcome } from './keeper-protocol.ts'

const [device = '', fileSystem = '', folder = '', ...mkfsOptions] = process.argv.slice(2)
const outcome = await prepareFileSystem(device, fileSystem as FileSystem, mkfsOptions, folder).then(
  (prepared): PrepareOutcome => ({ prepared }),
  (error: unknown): PrepareOutcome => {
    const message = error instanceof Error ? error.message : String(error)
    return { error: { code: isHoldfastError(error) ? error.code : 'HF_IO', message } }
  },
)
process.stdout.write(`${JSON.stringify(outcome)}\n`)
