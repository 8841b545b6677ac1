/** Programs of this package that run as processes of their own. */
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

/** Arguments for `node`, from the sources as well as from what is built. */
export function scriptArguments(name: 'keeper-main' | 'prepare-main'): string[] {
  if (!import.meta.url.endsWith('.ts')) return [fileURLToPath(new URL(`./${name}.js`, import.meta.url))]
  const loader = createRequire(import.meta.url).resolve('tsx')
  return [
    '--conditions=@holdfast/source',
    '--import',
    loader,
    fileURLToPath(new URL(`./${name}.ts`, import.meta.url)),
  ]
}
