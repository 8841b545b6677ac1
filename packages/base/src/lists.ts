/**
 * Takes everything out of a list that is filled again at once, a turn of the event loop later. A list whose length is set to
 * 0 gives its memory up, and the next push takes new; one that is emptied from its end keeps room for a few.
 */
export function empty(list: unknown[]): void {
  while (list.length > 0) list.pop()
}
