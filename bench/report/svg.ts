/** As much of SVG as the plots need: panels with bars or a line, on a grid. */

export interface Bar {
  readonly label: string
  readonly value: number
  /** Ours stand out. */
  readonly strong: boolean
}

export interface PanelSize {
  readonly width: number
  readonly height: number
}

const INK = '#1f2933'
const FAINT = '#9aa5b1'
const OURS = '#c2410c'
const THEIRS = '#627d98'
const FONT = 'font-family="system-ui, sans-serif"'
const TITLE_HEIGHT = 30

export function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}

const round = (value: number): number => Math.round(value * 10) / 10

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${round(x)}" y="${round(y)}" ${attributes}>${escape(content)}</text>`
}

/** Short: 12.3k, 1.2M. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return '–'
  if (Math.abs(value) >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`
  if (Math.abs(value) >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`
  return String(Number(value.toPrecision(3)))
}

const BAR_HEIGHT = 15
const LABEL_WIDTH = 84
const VALUE_WIDTH = 46

export function barPanelHeight(count: number): number {
  return TITLE_HEIGHT + count * (BAR_HEIGHT + 4) + 8
}

/** Horizontal bars from zero. */
export function barPanel(title: string, bars: readonly Bar[], { width }: PanelSize): string {
  const most = Math.max(...bars.map(({ value }) => value).filter(Number.isFinite), 0)
  const room = width - LABEL_WIDTH - VALUE_WIDTH - 12
  const lines = bars.map(({ label, value, strong }, i) => {
    const y = TITLE_HEIGHT + i * (BAR_HEIGHT + 4)
    const length = most > 0 && Number.isFinite(value) ? (value / most) * room : 0
    const rectangle =
      `<rect x="${LABEL_WIDTH}" y="${y}" width="${round(length)}" height="${BAR_HEIGHT}" ` +
      `fill="${strong ? OURS : THEIRS}"/>`
    const middle = y + BAR_HEIGHT - 4
    const name = text(LABEL_WIDTH - 6, middle, label, 'text-anchor="end"')
    return name + rectangle + text(LABEL_WIDTH + length + 5, middle, short(value))
  })
  return text(0, 14, title, 'font-weight="600"') + lines.join('')
}

export interface LinePoint {
  readonly x: number
  readonly y: number
}

/** A line with its points, from zero upwards; x by factors where `logarithmic`. */
export function linePanel(
  title: string,
  points: readonly LinePoint[],
  { width, height }: PanelSize,
  axis: { readonly title: string; readonly logarithmic: boolean },
): string {
  const box = { left: 44, right: width - 20, top: TITLE_HEIGHT, bottom: height - 36 }
  const place = (x: number): number => (axis.logarithmic ? Math.log(x) : x)
  const xs = points.map(({ x }) => place(x))
  const first = Math.min(...xs)
  const span = Math.max(...xs) - first || 1
  const most = Math.max(...points.map(({ y }) => y).filter(Number.isFinite), 0) || 1
  const at = ({ x, y }: LinePoint): { x: number; y: number } => ({
    x: box.left + ((place(x) - first) / span) * (box.right - box.left),
    y: box.bottom - (y / most) * (box.bottom - box.top),
  })
  const drawn = points.filter(({ y }) => Number.isFinite(y))
  const path = drawn.map((point) => `${round(at(point).x)},${round(at(point).y)}`).join(' ')
  const marks = drawn.map((point) => {
    const { x, y } = at(point)
    return `<circle cx="${round(x)}" cy="${round(y)}" r="3" fill="${OURS}"/>`
  })
  const grid = [0, 0.5, 1].map((part) => {
    const y = box.bottom - part * (box.bottom - box.top)
    const line = `<line x1="${box.left}" x2="${box.right}" y1="${y}" y2="${y}" stroke="${FAINT}" stroke-width="0.5"/>`
    return line + text(box.left - 5, y + 4, short(part * most), 'text-anchor="end"')
  })
  const ticks = points.map(({ x }) => text(at({ x, y: 0 }).x, box.bottom + 14, short(x), 'text-anchor="middle"'))
  return [
    text(0, 14, title, 'font-weight="600"'),
    ...grid,
    `<polyline points="${path}" fill="none" stroke="${OURS}" stroke-width="1.5"/>`,
    ...marks,
    ...ticks,
    text((box.left + box.right) / 2, height - 6, axis.title, 'text-anchor="middle"'),
  ].join('')
}

/** Panels side by side in rows of `columns`, under a title. */
export function sheet(title: string, panels: readonly string[], columns: number, size: PanelSize): string {
  const rows = Math.ceil(panels.length / columns)
  const gap = 24
  const width = columns * (size.width + gap) + gap
  const height = rows * (size.height + gap) + 56
  const placed = panels.map((panel, i) => {
    const x = gap + (i % columns) * (size.width + gap)
    const y = 48 + Math.floor(i / columns) * (size.height + gap)
    return `<g transform="translate(${x} ${y})">${panel}</g>`
  })
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" ` +
      `${FONT} font-size="11" fill="${INK}">`,
    `<title>${escape(title)}</title>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    text(gap, 28, title, 'font-size="16" font-weight="600"'),
    ...placed,
    '</svg>\n',
  ].join('\n')
}
