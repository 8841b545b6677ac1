/** Puts generated text between the markers of a page; the prose around them stays. */

/** Throws when the page has no place of this name. */
export function fillPlace(page: string, name: string, content: string): string {
  const begin = `<!-- begin ${name} -->`
  const end = `<!-- end ${name} -->`
  const from = page.indexOf(begin)
  const to = page.indexOf(end)
  if (from < 0 || to < from) throw new Error(`the page has no place ${begin} … ${end}`)
  return `${page.slice(0, from + begin.length)}\n\n${content.trim()}\n\n${page.slice(to)}`
}
