/**
 * The end of a turn: what is to be done right after the code that runs now, before any later event. As
 * `process.nextTick`, but where a socket of ours is being read it costs nothing beside the tasks themselves: Node would
 * make an object for each, and a map for each turn that has any.
 *
 * Invariant: tasks run in the order in which they were asked for, each once, and none is lost when one throws.
 */
type Task = () => void

const NONE: readonly Task[] = []
const tasks: (Task | undefined)[] = []
let count = 0
/** Somebody is bound to run what waits. */
let expected = false

function run(): void {
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

/** Whoever is called by an event begins its turn here, and ends it: what was asked for is done before `endTurn` returns. */
export function beginTurn(): void {
  expected = true
}

export const endTurn = run
