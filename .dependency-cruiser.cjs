/** Which package may import which. Pure packages know nothing of Node; adapters know nothing of each other. */
const PURE = 'base|wire|nbd-protocol|volume-log|replication|frontend|controller|engine'
const ADAPTERS = 'disk|peer-link|coordinator|nbd-server|api|attach|docker-plugin'
const rule = (name, from, to) => ({ name, severity: 'error', from, to })
const NOT_TEST = { pathNot: '\\.test\\.ts$|/testing/' }

module.exports = {
  forbidden: [
    rule('no-cycles', {}, { circular: true }),
    rule('pure-without-node', { path: `^packages/(${PURE})/src`, ...NOT_TEST }, { dependencyTypes: ['core'] }),
    rule(
      'pure-without-npm',
      { path: `^packages/(${PURE})/src`, ...NOT_TEST },
      { dependencyTypes: ['npm'], pathNot: 'protobufjs|^packages/|node_modules/@holdfast' },
    ),
    rule(
      'pure-imports-pure',
      { path: `^packages/(${PURE})/src`, ...NOT_TEST },
      { path: `^packages/(${ADAPTERS}|addon|direct-socket|storage-node|cli|simulator)/` },
    ),
    rule(
      'base-imports-nothing',
      { path: '^packages/base/src', ...NOT_TEST },
      { path: '^packages/', pathNot: '^packages/base/' },
    ),
    rule('addon-imports-nothing', { path: '^packages/addon/src' }, { path: '^packages/', pathNot: '^packages/addon/' }),
    rule(
      'direct-socket-imports-the-addon-only',
      { path: '^packages/direct-socket/src' },
      { path: '^packages/', pathNot: '^packages/(direct-socket|addon)/' },
    ),
    rule(
      'adapters-apart',
      { path: `^packages/(${ADAPTERS})/src`, ...NOT_TEST },
      // How sizes, names and labels are written is said in one place, for the REST API, Docker and the command line.
      { path: `^packages/(${ADAPTERS}|engine|storage-node|cli)/`, pathNot: '^packages/($1/|api/src/client)' },
    ),
    rule(
      'only-the-node-wires',
      { path: '^packages/(cli)/src' },
      { path: '^packages/(disk|peer-link|coordinator|nbd-server|engine|attach|docker-plugin)/' },
    ),
    rule('nobody-imports-the-simulator', { path: '^packages/(?!simulator)' }, { path: '^packages/simulator/' }),
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '/dist/|/native/build/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.base.json' },
    enhancedResolveOptions: { conditionNames: ['@holdfast/source', 'import', 'default'], exportsFields: ['exports'] },
  },
}
