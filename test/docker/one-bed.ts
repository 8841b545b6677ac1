/** One bed per test: closed afterwards, and its logs printed if the test failed. */
import { afterEach } from 'vitest'
import { DockerBed, type DockerBedOptions } from './docker-bed.ts'

/** To be called once in a file, outside of any test; what it returns starts the bed of a test. */
export function bedPerTest(): (options: DockerBedOptions) => Promise<DockerBed> {
  let bed: DockerBed | undefined
  afterEach(async ({ task }) => {
    const own = bed
    bed = undefined
    if (task.result?.state === 'fail') console.log(own?.logs() ?? 'there was no bed')
    await own?.close()
  }, 60_000)
  return async (options) => {
    bed = await DockerBed.start(options)
    return bed
  }
}
