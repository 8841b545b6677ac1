/**
 * The end of a turn: what is to be done right after the code that runs now, before any later event. As
 * `process.nextTick`, but where a socket of ours is being read it costs nothing beside the tasks themselves: Node would
 * make an object for each, and a map for each turn that has any.
 *
 * Invariants:
 * - Tasks run in the order in which they were asked for, each once, and none is lost when one throws.
 * - Where something throws, no task runs before the process has had the chance to end for it.
 */
type Task = () => void

const NONE: readonly Task[] = []
const tasks: (Task | undefined)[] = []
let count = 0
/** Somebody is bound to run what waits. */
let expected = false
let running = false

function run(): void {
  // A turn that ends within a task: whoever runs that runs what was asked for there.
  if (running) return
  running = true
  let next = 0
  try {
    // Those that are asked for meanwhile, too.
    while (next < count) {
      const task = tasks[next]
      tasks[next++] = undefined
      task?.()
    }
  } finally {
    const left = count - next
    count = 0
    expected = false
    running = false
    // Only after a throw: what had been asked for still happens, should the process live on.
    for (const task of left > 0 ? tasks.splice(next, left) : NONE) if (task !== undefined) atEndOfTurn(task)
  }
}

/** Has `task` done when the turn ends. */
export function atEndOfTurn(task: Task): void {
  tasks[count++] = task
  if (expected) return
  expected = true
  process.nextTick(run)
}

/** Whoever is called by an event begins its turn here, and ends it by `endTurn`, or by `breakTurn` where something threw. */
export function beginTurn(): void {
  expected = true
}

/** What was asked for is done before this returns. */
export const endTurn = run

/** What was asked for is done in a while, if the process lives on. */
export function breakTurn(): void {
  expected = count > 0
  if (expected) process.nextTick(run)
}
