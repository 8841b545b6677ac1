/** The report as one page: operations over time with the faults as bands, and the table. No scripts, nothing from elsewhere. */
import type { FaultRecord, Journal } from './journal.ts'

const WIDTH = 1200
const HEIGHT = 160
const LEFT = 60
const COLOURS = ['#1f6feb', '#2da44e', '#bf5700']

const escape = (text: string): string =>
  text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`)

export function htmlReport(journal: Journal, facts: Readonly<Record<string, string>>): string {
  const seconds = Math.max(1, Math.ceil(journal.now))
  const charts = [...journal.series].map(([name, series], i) =>
    chart(name, series, journal.faults, seconds, COLOURS[i % COLOURS.length] ?? '#000'),
  )
  const lines = Object.entries(facts).map(([name, value]) => `<dt>${escape(name)}</dt><dd>${escape(value)}</dd>`)
  const violations = journal.violations.map((text) => `<li>${escape(text)}</li>`)
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Holdfast chaos run</title><style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: ${WIDTH + 40}px; color: #1f2328 }
table { border-collapse: collapse } th, td { padding: 3px 10px; border-bottom: 1px solid #d0d7de; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums } .bad { color: #cf222e; font-weight: bold }
dl { display: grid; grid-template-columns: max-content auto; gap: 2px 14px } dt { color: #59636e } dd { margin: 0 }
text { font: 11px system-ui, sans-serif; fill: #59636e } small { color: #59636e }
</style></head><body>
<h1>Holdfast chaos run</h1>
<dl>${lines.join('\n')}</dl>
<h2>${journal.violations.length === 0 ? 'No violation' : `<span class="bad">${journal.violations.length} violations</span>`}</h2>
<ol>${violations.slice(0, 100).join('\n')}</ol>
<h2>Operations per second</h2>
<p><small>Shaded: a fault was there. Hatched end: until full redundancy. Gaps of the mounted volumes between faults are
their verification on another host.</small></p>
${charts.join('\n')}
<h2>Faults</h2>
${table(journal)}
</body></html>
`
}

function chart(
  name: string,
  series: readonly number[],
  faults: readonly FaultRecord[],
  seconds: number,
  colour: string,
): string {
  // The last sweep over all blocks is many times faster than the paced run; it is cut off above.
  const sorted = [...series].sort((a, b) => a - b)
  const most = Math.max(1, Math.ceil((sorted[Math.floor(sorted.length * 0.97)] ?? 0) * 1.15))
  const x = (second: number): number => LEFT + (second / seconds) * (WIDTH - LEFT)
  const y = (value: number): number => HEIGHT - (Math.min(value, most) / most) * (HEIGHT - 10)
  const bands = faults.map((fault, i) => {
    const end = fault.wholeAt ?? fault.endedAt
    const title = `<title>${i + 1} ${escape(fault.name)}: ${escape(fault.detail)}</title>`
    const rect = (from: number, to: number, fill: string): string =>
      `<rect x="${x(from).toFixed(1)}" y="0" width="${Math.max(1, x(to) - x(from)).toFixed(1)}" height="${HEIGHT}" fill="${fill}">${title}</rect>`
    const label = `<text x="${x(fault.beganAt).toFixed(1)}" y="${HEIGHT + 14}">${i + 1}</text>`
    const fill = fault.violations.length > 0 ? '#ffcecb' : '#fff1c2'
    return rect(fault.beganAt, fault.endedAt, fill) + rect(fault.endedAt, end, '#eaeef2') + label
  })
  const points = series.map((value, second) => `${x(second + 0.5).toFixed(1)},${y(value).toFixed(1)}`).join(' ')
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT + 18}" width="100%" role="img" aria-label="${escape(name)}">
${bands.join('\n')}
<polyline points="${points}" fill="none" stroke="${colour}" stroke-width="1.2"/>
<text x="0" y="14" style="font-weight:bold;fill:${colour}">${escape(name)}</text><text x="0" y="30">${most}/s</text>
<text x="${LEFT - 12}" y="${HEIGHT}">0</text><line x1="${LEFT}" y1="${HEIGHT}" x2="${WIDTH}" y2="${HEIGHT}" stroke="#d0d7de"/>
</svg>`
}

function table(journal: Journal): string {
  const names = [...journal.series.keys()]
  const cell = (text: string): string => `<td class="number">${text}</td>`
  const rows = journal.faults.map((fault, i) => {
    const pauses = names.map((name) => {
      const { hit = 0, others = 0 } = fault.pauses[name] ?? {}
      return cell(`${(others / 1000).toFixed(1)}${hit > 0 ? ` <small>/ ${(hit / 1000).toFixed(1)}</small>` : ''}`)
    })
    const whole = fault.wholeAt === undefined ? '<span class="bad">never</span>' : (fault.wholeAt - fault.endedAt).toFixed(1)
    const bad = fault.violations.length > 0 ? `<span class="bad">${fault.violations.length}</span>` : '0'
    const what = `${escape(fault.detail)}<br><small>${fault.notes.slice(0, 12).map(escape).join('<br>')}</small>`
    const first = `<td>${i + 1}</td><td>${escape(fault.name)}</td><td>${what}</td>`
    return `<tr>${first}${pauses.join('')}${cell(whole)}${cell(bad)}</tr>`
  })
  const heads = ['', 'fault', 'what', ...names.map((name) => `pause ${name}, s`), 'redundant after, s', 'violations']
  return `<table><tr>${heads.map((head) => `<th>${head}</th>`).join('')}</tr>
${rows.join('\n')}</table>
<p><small>Longest time without an answer, of the clients at other hosts / at the hosts hit.</small></p>`
}
