/** One line on stderr that says how it goes: overwritten on a terminal, else printed when it changes. */
import type { Terminal } from './terminal.ts'

const FRAMES = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏']
const FRAME_MS = 100
const CLEAR_LINE = '\r\u001b[K'

export class Progress {
  readonly #terminal: Terminal
  readonly #startedMs: number
  #text = ''
  #frame = 0
  #timer: ReturnType<typeof setInterval> | undefined

  constructor(terminal: Terminal) {
    this.#terminal = terminal
    this.#startedMs = terminal.nowMs()
  }

  show(text: string): void {
    if (text === this.#text) return
    this.#text = text
    if (!this.#terminal.progress) {
      this.#terminal.err(`${text}\n`)
      return
    }
    this.#draw()
    this.#timer ??= setInterval(() => this.#draw(), FRAME_MS)
  }

  /** Takes the line away. */
  end(): void {
    if (this.#timer === undefined) return
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#terminal.err(CLEAR_LINE)
  }

  #draw(): void {
    const seconds = ((this.#terminal.nowMs() - this.#startedMs) / 1000).toFixed(1)
    const frame = FRAMES[this.#frame++ % FRAMES.length] ?? ''
    this.#terminal.err(`${CLEAR_LINE}${frame} ${this.#text} (${seconds} s)`)
  }
}
