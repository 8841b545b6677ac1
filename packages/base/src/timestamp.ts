/**
 * RFC 3339 in UTC, whole seconds, from milliseconds since 1970. For people only.
 *
 * Days to civil date: the proleptic Gregorian calendar in eras of 400 years, years beginning in March.
 */
export function timestamp(wallMs: number): string {
  const seconds = Math.floor(wallMs / 1000)
  const days = Math.floor(seconds / 86_400)
  const rest = seconds - days * 86_400
  const shifted = days + 719_468
  const era = Math.floor(shifted / 146_097)
  const dayOfEra = shifted - era * 146_097
  const yearOfEra = Math.floor(
    (dayOfEra -
      Math.floor(dayOfEra / 1460) +
      Math.floor(dayOfEra / 36_524) -
      Math.floor(dayOfEra / 146_096)) /
      365,
  )
  const dayOfYear =
    dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const marchMonth = Math.floor((5 * dayOfYear + 2) / 153)
  const day = dayOfYear - Math.floor((153 * marchMonth + 2) / 5) + 1
  const month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
  const year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  const two = (value: number): string => String(value).padStart(2, '0')
  const time = [rest / 3600, (rest / 60) % 60, rest % 60].map((part) => two(Math.floor(part)))
  return `${String(year).padStart(4, '0')}-${two(month)}-${two(day)}T${time.join(':')}Z`
}
