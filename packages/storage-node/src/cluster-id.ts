/** The cluster's name for itself, drawn by the first node that comes to an empty coordinator. */
import {
  type Coordinator,
  type EventLog,
  HoldfastError,
  KEY_ROOT,
  type Random,
  type Scheduler,
} from '@holdfast/base'

export const CLUSTER_KEY = `${KEY_ROOT}cluster`
const ID_DIGITS = 16
const RETRY_MS = 500
/** Say it again only so often while the coordinator is away. */
const REPORT_EVERY = 20

/** At `CLUSTER_KEY`. */
interface ClusterRecord {
  readonly id: string
}

interface Ports {
  readonly coordinator: Coordinator
  readonly random: Random
  readonly scheduler: Scheduler
  readonly events: EventLog
}

/** Waits for the coordinator as long as it takes; `cancel` ends that and rejects. */
export function findClusterId(ports: Ports): { id: Promise<string>; cancel: () => void } {
  let cancel = (): void => {}
  const id = new Promise<string>((resolve, reject) => {
    const search = new Search(ports, resolve, reject)
    cancel = () => {
      search.end()
      reject(new HoldfastError('HF_UNAVAILABLE', 'stopped while waiting for the coordinator'))
    }
    search.look()
  })
  return { id, cancel }
}

class Search {
  readonly #ports: Ports
  readonly #found: (id: string) => void
  readonly #failed: (error: unknown) => void
  #attempts = 0
  #ended = false

  constructor(ports: Ports, found: (id: string) => void, failed: (error: unknown) => void) {
    this.#ports = ports
    this.#found = found
    this.#failed = failed
  }

  end(): void {
    this.#ended = true
  }

  look(): void {
    if (this.#ended) return
    this.#ports.coordinator.range(CLUSTER_KEY, (result) => {
      if (this.#ended) return
      if (result.kind === 'unknown') {
        this.#retry(result.reason)
        return
      }
      const entry = result.entries.find(({ key }) => key === CLUSTER_KEY)
      if (entry === undefined) this.#draw()
      else this.#read(entry.value)
    })
  }

  #read(value: string): void {
    this.#ended = true
    try {
      this.#found(parseRecord(value).id)
    } catch (error) {
      this.#failed(error)
    }
  }

  /** Two nodes may do this at once: whoever comes second reads what the first wrote. */
  #draw(): void {
    const { coordinator, random } = this.#ports
    const record: ClusterRecord = { id: random.hex(ID_DIGITS) }
    const put = { op: 'put', key: CLUSTER_KEY, value: JSON.stringify(record) } as const
    const compares = [{ key: CLUSTER_KEY, modRevision: 0 }]
    coordinator.transact({ compares, operations: [put] }, (result) => {
      if (result.kind === 'ok' || result.kind === 'conflict') this.look()
      else this.#retry(result.kind === 'unknown' ? result.reason : result.kind)
    })
  }

  #retry(reason: string): void {
    const { events, scheduler } = this.#ports
    if (this.#attempts++ % REPORT_EVERY === 0) {
      events.event(
        'warn',
        'waiting for the coordinator: check that it runs and --coordinator is right',
        { reason },
      )
    }
    scheduler.after(RETRY_MS, () => this.look())
  }
}

function parseRecord(value: string): ClusterRecord {
  try {
    const { id } = JSON.parse(value) as { id?: unknown }
    if (typeof id === 'string' && id !== '') return { id }
  } catch {
    // Said below.
  }
  throw new HoldfastError(
    'HF_DAMAGED',
    `the key ${CLUSTER_KEY} of the coordinator holds no cluster: is it another program's?`,
  )
}
