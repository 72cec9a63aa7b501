// Runs the public suite for HTTP caches through Vaxel, or through another cache, and holds the results against a
// recorded table.
//
//   node tests/real/conformance.mjs                     Vaxel ($VAXEL or target/release/vaxel); fails where it got worse
//   node tests/real/conformance.mjs --record            the same, and the table is written anew
//   node tests/real/conformance.mjs --id TEST           one test, with every message that was seen
//   node tests/real/conformance.mjs --peer NAME --record   another cache, by tests/real/peers/NAME.sh
//   node tests/real/conformance.mjs --tables            writes the tables of docs/CONFORMANCE.md from the recorded one
//
// The suite comes from npm into a temporary directory. Its origin runs in this process, so that all ports are free
// ones of 127.0.0.1.

import { execFileSync, spawn } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { createRequire } from 'node:module'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'

const SUITE = 'http-cache-tests@0.4.5'
const HERE = import.meta.dirname ?? new URL('.', import.meta.url).pathname
const TABLE = join(HERE, 'conformance.json')
const DOCS = join(HERE, '../../docs/CONFORMANCE.md')
// The suite's published results, as they come with it.
const PUBLISHED = { nginx: 'nginx', varnish: 'Varnish', squid: 'Squid', apache: 'httpd', trafficserver: 'ATS' }
const CHUNK = 50
// What the suite of 2020 expects otherwise than RFC 9111 (2022), or mistakes; docs/CONFORMANCE.md says why. For every
// cache alike: a test on this list passes where the second answer is as it says here.
const CORRECTED = {
  // Section 5.1: the first member of Age counts, and an invalid one is ignored.
  'age-parse-nonnumeric': 'cached',
  'age-parse-negative': 'cached',
  'age-parse-float': 'cached',
  'age-parse-prefix-twoline': 'cached',
  'age-parse-dup-0': 'cached',
  'age-parse-dup-0-twoline': 'cached',
  'age-parse-dup-old': 'cached',
  // Section 5.3: an invalid Expires MUST be taken as past; section 4.2: so SHOULD one with another zone than GMT.
  'freshness-expires-32bit': 'not_cached', // it has no comma after the weekday
  'freshness-expires-far-future': 'not_cached', // neither has this
  'freshness-expires-invalid-utc': 'not_cached',
  'freshness-expires-invalid-aest': 'not_cached',
  'freshness-expires-invalid-2-digit-year': 'not_cached',
  'freshness-expires-invalid-no-comma': 'not_cached',
  'freshness-expires-invalid-multiple-spaces': 'not_cached',
  'freshness-expires-invalid-date-dashes': 'not_cached',
  'freshness-expires-invalid-time-periods': 'not_cached',
  'freshness-expires-invalid-1-digit-hour': 'not_cached',
  'freshness-expires-invalid-multiple-lines': 'not_cached'
}

const { values: options } = parseArgs({
  options: {
    id: { type: 'string' }, peer: { type: 'string' }, record: { type: 'boolean' }, tables: { type: 'boolean' }
  }
})

const dir = mkdtempSync(join(tmpdir(), 'vaxel-conformance-'))
const children = []
process.on('exit', () => {
  for (const child of children) child.kill('SIGTERM')
  rmSync(dir, { recursive: true, force: true })
})
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(143))

if (options.tables) {
  writeTables()
} else {
  process.exitCode = await main()
}
process.exit()

async function main () {
  const suite = await install()
  const origin = await startOrigin(suite)
  const port = await start(origin)
  suite.config.setBaseUrl(`http://127.0.0.1:${port}`)
  if (options.id) {
    const test = suite.tests.find(test => test.id === options.id)
    if (!test) throw new Error(`no test has the id ${options.id}`)
    await suite.run([{ ...test, dump: true }])
    console.log(suite.results[options.id])
    return 0
  }
  await suite.run(suite.tests)
  const table = JSON.parse(readFileSync(TABLE, 'utf8'))
  const name = options.peer ?? 'vaxel'
  const worse = () => suite.tests.filter(test => isWorse(suite.verdict(test), table.tests[test.id]?.[name]))
  // The suite waits by the clock. What got worse is asked once more, alone, before it counts.
  if (!options.record) await suite.again(worse())
  print(suite)
  if (options.record) return record(suite, table, name)
  const unknown = suite.tests.filter(test => !(name in (table.tests[test.id] ?? {})))
  for (const test of [...worse(), ...unknown]) {
    const before = table.tests[test.id]?.[name] ?? 'not recorded'
    console.log(`FAIL ${test.id}: ${suite.verdict(test)}, was ${before}: ${suite.results[test.id]?.[1]}`)
  }
  return worse().length + unknown.length ? 1 : 0
}

/** The suite: its tests in one list, each with the name of its group, and what runs and judges them. */
async function install () {
  const npm = ['install', '--prefix', dir, '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error', SUITE]
  execFileSync('npm', npm, { stdio: ['ignore', 'ignore', 'inherit'] })
  const root = join(dir, 'node_modules/http-cache-tests')
  const load = path => import(join(root, path))
  const groups = (await load('tests/index.mjs')).default
  const { makeCacheTest, testResults: results } = await load('client/test.mjs')
  const config = await load('client/config.mjs')
  config.setFetch(createRequire(join(root, 'package.json'))('node-fetch'))
  config.setUseBrowserCache(false)
  const tests = groups.flatMap(group =>
    group.tests.filter(test => !test.browser_only).map(test => ({ ...test, group: group.id })))
  for (const test of tests.filter(test => test.id in CORRECTED)) test.requests[1].expected_type = CORRECTED[test.id]
  const byId = new Map(tests.map(test => [test.id, test]))

  const run = async (tests, chunk = CHUNK) => {
    for (let index = 0; index < tests.length; index += chunk) {
      await Promise.all(tests.slice(index, index + chunk).map(test => makeCacheTest(test)))
    }
  }
  const again = async tests => {
    for (const test of tests) delete results[test.id]
    await run(tests, 1)
  }
  // As the suite's own page judges (lib/display.mjs), which needs a browser. A setup that failed is told apart from a
  // test that failed; what depends on a test that did not pass is not judged.
  const verdict = (test, results_ = results) => {
    let result = results_[test.id]
    if (result === undefined) return 'untested'
    // A published result was made before the correction: it is the opposite now.
    if (results_ !== results && test.id in CORRECTED && result[0] !== 'Setup') result = result === true ? [] : true
    if (test.depends_on?.some(id => !isGood(verdict(byId.get(id), results_)))) return 'dependency'
    if (result[0] === 'Setup') return result[1] === 'retry' ? 'retry' : 'setup'
    if (test.kind === 'check') return result === true ? 'yes' : 'no'
    return result === true ? 'pass' : 'fail'
  }
  const published = (await load('results/index.mjs')).default
  return { root, load, config, tests, results, published, run, again, verdict }
}

async function startOrigin (suite) {
  const handlers = {}
  for (const name of ['config', 'test', 'state']) {
    handlers[name] = (await suite.load(`server/handle-${name}.mjs`)).default
  }
  // What the suite's origin has to say of its own tests is only of use for a single one.
  if (!options.id) console.log = quiet(console.log)
  const server = http.createServer((request, response) => {
    const [name, ...rest] = new URL(request.url, 'http://localhost').pathname.split('/').slice(1)
    if (handlers[name]) return handlers[name](rest, request, response)
    response.writeHead(404).end()
  })
  // Caches keep connections to it; it must not close them under a request.
  server.keepAliveTimeout = 120_000
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  return server.address().port
}

function quiet (log) {
  return (...words) => { if (!String(words[0]).startsWith('SERVER WARNING')) log(...words) }
}

/** Starts the cache before the origin; its port, once it answers. */
async function start (origin) {
  const port = await freePort()
  const child = options.peer
    ? spawn('bash', [join(HERE, 'peers', `${options.peer}.sh`), origin, port, dir], { stdio: 'inherit' })
    : spawn(resolve(process.env.VAXEL ?? 'target/release/vaxel'), ['run', '--config', join(HERE, 'conformance.toml')], {
      env: { ...process.env, LISTEN: `127.0.0.1:${port}`, ORIGIN: `http://127.0.0.1:${origin}` },
      stdio: ['ignore', 'ignore', 'inherit']
    })
  children.push(child)
  child.on('error', error => { console.error(`FAIL ${error.message}`); process.exit(1) })
  child.on('exit', code => { console.error(`FAIL the cache ended with ${code}`); process.exit(1) })
  for (let tries = 0; !await answers(port); tries++) {
    if (tries === 300) throw new Error('the cache does not answer')
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  return port
}

function answers (port) {
  return new Promise(resolve => {
    const request = http.get({ port, host: '127.0.0.1', path: '/', agent: false }, response => {
      response.resume()
      resolve(true)
    })
    request.on('error', () => resolve(false))
  })
}

function freePort () {
  return new Promise(resolve => {
    const server = net.createServer()
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

function isGood (verdict) {
  return verdict === 'pass' || verdict === 'yes'
}

function isWorse (now, before) {
  return isGood(before) && !isGood(now)
}

/** Counts by group and kind, then what is not good. */
function print (suite) {
  const counts = new Map()
  for (const test of suite.tests) {
    const kind = test.kind ?? 'required'
    for (const key of [`${test.group} ${kind}`, `all ${kind}`]) {
      const count = counts.get(key) ?? { good: 0, all: 0 }
      counts.set(key, { good: count.good + isGood(suite.verdict(test)), all: count.all + 1 })
    }
  }
  for (const [key, { good, all }] of counts) console.log(`${key.padEnd(28)} ${good}/${all}`)
  for (const test of suite.tests.filter(test => !isGood(suite.verdict(test)))) {
    const result = suite.results[test.id]
    console.log(`${(test.kind ?? 'required').padEnd(9)} ${suite.verdict(test).padEnd(10)} ${test.id}: ${result?.[1] ?? ''}`)
  }
}

function record (suite, table, name) {
  const { version } = JSON.parse(readFileSync(join(suite.root, 'package.json'), 'utf8'))
  if (!SUITE.endsWith(`@${version}`)) throw new Error(`the suite is ${version}`)
  table.versions = { ...table.versions, [name]: versionOf(name) }
  const published = Object.entries(PUBLISHED).map(([file, label]) =>
    [`${file}-published`, label, JSON.parse(readFileSync(join(suite.root, 'results', `${file}.json`), 'utf8'))])
  table.suite = SUITE
  const tests = {}
  for (const [column, label] of published) table.versions[column] = suite.published.find(({ name }) => name === label).version.split(/[-+]/)[0]
  for (const test of suite.tests) {
    tests[test.id] = { ...table.tests[test.id], group: test.group, kind: test.kind ?? 'required', [name]: suite.verdict(test) }
    for (const [column, , results] of published) tests[test.id][column] = suite.verdict(test, results)
  }
  const lines = Object.entries(tests).map(([id, row]) => `    ${JSON.stringify(id)}: ${JSON.stringify(row)}`)
  const versions = JSON.stringify(table.versions)
  writeFileSync(TABLE, `{\n  "suite": ${JSON.stringify(SUITE)},\n  "versions": ${versions},\n  "tests": {\n${lines.join(',\n')}\n  }\n}\n`)
  return 0
}

function versionOf (name) {
  if (name === 'vaxel') return ''
  return execFileSync('bash', [join(HERE, 'peers', `${name}.sh`), 'version'], { encoding: 'utf8' }).split(/[-+]/)[0]
}

/** The tables of the docs, between their markers. */
function writeTables () {
  const { versions, tests } = JSON.parse(readFileSync(TABLE, 'utf8'))
  const columns = ['vaxel', ...Object.keys(PUBLISHED).filter(name => name in versions), ...Object.keys(PUBLISHED).map(name => `${name}-published`)]
  const rows = new Map()
  for (const kind of ['required', 'optimal', 'check']) rows.set(`**all**, ${kind}`, [])
  for (const row of Object.values(tests)) {
    const key = `${row.group}, ${row.kind}`
    rows.set(key, [...rows.get(key) ?? [], row])
    rows.get(`**all**, ${row.kind}`).push(row)
  }
  const head = columns.map(name => `${name.replace('-published', '†')} ${versions[name]}`.trim())
  const cells = (key, group) => columns.map(name => {
    const good = group.filter(row => isGood(row[name])).length
    return name === 'vaxel' ? `**${good}**` : good
  })
  const lines = [['group, kind', 'tests', ...head], Array(columns.length + 2).fill('---')]
  for (const [key, group] of rows) lines.push([key, group.length, ...cells(key, group)])
  const text = lines.map(line => `| ${line.join(' | ')} |`).join('\n')
  const docs = readFileSync(DOCS, 'utf8')
  writeFileSync(DOCS, docs.replace(/(<!-- table -->\n)[^]*?(<!-- end -->)/, `$1${text}\n$2`))
}
