/** What is in `deploy` fits the node: names of metrics, settings, files; and the tools that will read it accept it. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { TestCluster } from '../e2e/harness.ts'
import { TestPrometheus } from './test-prometheus.ts'

const ROOT = new URL('../../', import.meta.url).pathname
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')
const has = (program: string): boolean => ['/usr/bin', '/bin'].some((folder) => existsSync(join(folder, program)))
const DASHBOARD = 'deploy/grafana/dashboards/holdfast.json'

interface Panel {
  readonly title: string
  readonly targets: readonly { readonly expr: string; readonly legendFormat?: string }[]
}

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-deploy-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Two nodes with a volume that was written to and read. */
describe('the dashboard and the alert rules', () => {
  let cluster: TestCluster | undefined
  beforeAll(async () => {
    cluster = await TestCluster.start({ nodes: ['a', 'b'] })
    await cluster.cli(['volume', 'create', 'v', '--size', '64MiB', '--replicas', '2'], 'a')
    await cluster.healthy('v')
    const io = ['--rw=randrw', '--bs=4k', '--size=1m', '--fsync=16', `--uri=${cluster.node('a').uri('v')}`]
    expect((await cluster.fio(io)).error).toBe(0)
  }, 90_000)
  afterAll(() => cluster?.close())

  it.each([DASHBOARD, 'deploy/alerts.yml'])('%s names metrics that exist', async (path) => {
    const metrics = await (await fetch(`${cluster?.node('a').api}/metrics`)).text()
    const names = new Set(read(path).match(/\b(?:holdfast|process|nodejs)_[a-z0-9_]+/g) ?? [])
    const known = new Set([...metrics.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name))
    const missing = [...names].filter((name) => !known.has(name) && !known.has(name.replace(/_(bucket|sum|count)$/, '')))
    expect(names.size).toBeGreaterThan(6)
    expect(missing).toEqual([])
  })

  it.skipIf(!has('prometheus'))('each panel shows something, under the name that its legend has', { timeout: 60_000 }, async () => {
    const targets = [...(cluster?.nodes.values() ?? [])].map(({ api }) => new URL(api).host)
    const prometheus = await TestPrometheus.start(join(folder, 'prometheus'), targets, join(ROOT, 'deploy/alerts.yml'))
    try {
      const { panels } = JSON.parse(read(DASHBOARD)) as { readonly panels: readonly Panel[] }
      expect(panels.length).toBeGreaterThan(10)
      for (const { title, targets: queries } of panels) {
        for (const { expr, legendFormat = '' } of queries) {
          const found = await prometheus.untilAnswered(`${title}: ${expr}`, expr)
          for (const [, label = ''] of legendFormat.matchAll(/\{\{(\w+)\}\}/g)) {
            expect(found.map((labels) => labels[label] ?? `${title} has no label ${label}`)).not.toContainEqual(
              expect.stringContaining('has no label'),
            )
          }
        }
      }
      expect(await prometheus.alerts()).toEqual([])
    } finally {
      await prometheus.close()
    }
  })
})

/** What the unit gives to Node.js itself. */
function runtimeOptions(): string[] {
  const words = /^ExecStart=(.*)$/m.exec(read('deploy/systemd/holdfast.service'))?.[1]?.split(' ') ?? []
  return words.slice(1, words.findIndex((word) => word.endsWith('holdfast.js')))
}

describe('the settings', () => {
  it.each(['deploy/systemd/node.yaml', 'deploy/compose-node.yaml'])('%s are ones that a node takes', (path) => {
    const bad = join(folder, 'bad.yaml')
    // Everything is read before the first thing that is wrong is said: a name that no node can have.
    writeFileSync(bad, `${read(path)}\nname: ".."\n`)
    const program = join(ROOT, 'packages/cli/bin/holdfast.js')
    const run = (): unknown => execFileSync(process.execPath, [...runtimeOptions(), program, 'node', '--config', bad], { stdio: 'pipe' })
    expect(run).toThrow(/name .*must be 1 to 63|name must/)
  })

  it('of the runtime are the same however a node is started', () => {
    const options = runtimeOptions()
    expect(options).toEqual(['--use-largepages=silent', '--min-semi-space-size=16', '--no-memory-reducer'])
    for (const path of ['Dockerfile', 'scripts/start.mjs', 'bench/bed/cluster.ts']) {
      for (const option of options) expect(read(path), path).toMatch(new RegExp(`['"]${option}['"]`))
    }
  })
})

describe('the unit', () => {
  const unit = read('deploy/systemd/holdfast.service')
  const config = read('deploy/systemd/node.yaml')

  it('leaves the keepers alone, and is there before Docker', () => {
    for (const line of ['KillMode=process', 'Before=docker.service', 'Wants=network-online.target', 'Restart=always']) {
      expect(unit.split('\n')).toContain(line)
    }
  })

  it('waits for the socket that the settings name', () => {
    const socket = /^docker-plugin: (\S+)$/m.exec(config)?.[1]
    expect(socket).toBeDefined()
    expect(unit).toContain(`test -S ${socket}`)
  })
})

describe('tools', () => {
  it.skipIf(!has('promtool'))('each alert comes when it should, and not when it should not', () => {
    const rules = join(ROOT, 'deploy/alerts.yml')
    const tests = read('test/deploy/alerts.yml')
    const names = [...readFileSync(rules, 'utf8').matchAll(/- alert: (\w+)/g)].map(([, name]) => name ?? '')
    expect(names.length).toBeGreaterThan(6)
    expect(names.filter((name) => !tests.includes(`alertname="${name}"`))).toEqual([])
    const path = join(folder, 'alerts.yml')
    writeFileSync(path, tests.replace('RULES', rules))
    expect(execFileSync('promtool', ['test', 'rules', path], { encoding: 'utf8' })).toContain('SUCCESS')
  })

  it.skipIf(!has('promtool'))('promtool takes the configuration and the rules', () => {
    const said = execFileSync('promtool', ['check', 'config', join(ROOT, 'deploy/prometheus.yml')], { encoding: 'utf8' })
    expect(said).toContain('rules found')
  })

  it.skipIf(!has('docker-compose'))('docker-compose takes the file, and every file that it mounts is there', () => {
    const said = execFileSync('docker-compose', ['-f', join(ROOT, 'docker-compose.yml'), 'config'], { encoding: 'utf8' })
    const mounted = [...said.matchAll(/^\s*- (\/\S+?):\/\S+:ro$/gm)].map(([, path]) => path ?? '')
    expect(mounted.length).toBeGreaterThan(4)
    expect(mounted.filter((path) => !existsSync(path))).toEqual([])
  })

  it.skipIf(!has('systemd-analyze'))('systemd takes the unit', () => {
    const unit = join(folder, 'holdfast.service')
    writeFileSync(unit, read('deploy/systemd/holdfast.service').replace(/\/usr\/bin\/node|\/sbin\/modprobe/g, '/bin/true'))
    const said = execFileSync('systemd-analyze', ['verify', unit], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
    expect(said).toBe('')
  })
})
