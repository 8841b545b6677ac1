/** Whether the node has confirmed the right to the volume: nothing is sent to a node that has not. */
export class Gate {
  #open = false
  #waiters: (() => void)[] = []

  get isOpen(): boolean {
    return this.#open
  }
  open(): void {
    this.#open = true
    const waiters = this.#waiters
    this.#waiters = []
    for (const waiter of waiters) waiter()
  }
  shut(): void {
    this.#open = false
  }
  /** Resolves when it is open. */
  async pass(): Promise<void> {
    while (!this.#open) await new Promise<void>((resolve) => this.#waiters.push(resolve))
  }
}

/** With `idly` it does not keep the process alive. */
export function sleep(ms: number, idly = false): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    if (idly) timer.unref()
  })
}
