/** Programs that run as processes of their own. */
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

/**
 * Arguments for `node`, from the sources as well as from what is built.
 * @param from `import.meta.url` of a module beside the program.
 */
export function programArguments(name: string, from: string): string[] {
  if (!from.endsWith('.ts')) return [fileURLToPath(new URL(`./${name}.js`, from))]
  const loader = createRequire(from).resolve('tsx')
  return ['--conditions=@holdfast/source', '--import', loader, fileURLToPath(new URL(`./${name}.ts`, from))]
}
