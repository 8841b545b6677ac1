/** What a part of the growth benchmark yields. */
import { type Table, figure } from '../system/report.ts'

export interface Point {
  readonly x: number
  /** By the titles of the part's figures. */
  readonly figures: Readonly<Record<string, number>>
}

export interface Part {
  /** For file names. */
  readonly key: string
  readonly title: string
  readonly axis: string
  /** Whether x grows by factors. */
  readonly logarithmic: boolean
  readonly points: readonly Point[]
}

/** Figures with a title that others share the beginning of, up to the bracket with the unit. */
export function titlesOf({ points }: Part): readonly string[] {
  return [...new Set(points.flatMap(({ figures }) => Object.keys(figures)))]
}

export function tableOf(part: Part): Table {
  const titles = titlesOf(part)
  return [
    [part.axis, ...titles],
    ...part.points.map(({ x, figures }) => {
      return [figure(x), ...titles.map((title) => figure(figures[title] ?? Number.NaN))]
    }),
  ]
}
