// The live page: follows /status/events, draws what it says, and sends orders.
//
// Whatever comes from the gateway may have been chosen by a stranger (a path, a name). It becomes text, never markup:
// nodes are made by `el`, values set as text or as attributes of a known name.
"use strict";

const GEARS = ["drive", "eco", "limp", "park"];
const POINTS = 150;
const byId = (id) => document.getElementById(id);

// ---- nodes

/** A node with attributes (`data-x`, `class`, `aria-x` …; functions listen) and children (nodes or text). */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, String(value));
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
  node.append(...children);
  return node;
}

/** Only what differs is written: a screen reader and a selection are left alone. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The children of `parent` become one node for each item, kept by key, so that focus and selection stay. */
function keyed(parent, items, key, make, update) {
  const kept = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let at = null;
  for (const item of items) {
    const name = key(item);
    let node = kept.get(name);
    if (node) kept.delete(name);
    else {
      node = make(item);
      node.dataset.key = name;
    }
    update(node, item);
    const place = at ? at.nextSibling : parent.firstChild;
    if (place !== node) parent.insertBefore(node, place);
    at = node;
  }
  for (const node of kept.values()) node.remove();
}

// ---- words

function number(value, digits = 1) {
  if (value == null) return "–";
  return value.toLocaleString("en", { maximumFractionDigits: value >= 100 ? 0 : digits });
}

const percent = (ratio) => (ratio == null ? "–" : `${number(100 * ratio)} %`);

function ms(value) {
  if (value == null) return "–";
  if (value >= 1000) return `${number(value / 1000)} s`;
  return `${number(value, value < 10 ? 1 : 0)} ms`;
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${number(value)} ${units[unit]}`;
}

function span(seconds) {
  const units = [["y", 31557600], ["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0 s";
  const [name, size] = units[first];
  const rest = units[first + 1];
  const left = rest && first < 3 ? Math.floor((seconds % size) / rest[1]) : 0;
  return `${Math.floor(seconds / size)} ${name}${left ? ` ${left} ${rest[0]}` : ""}`;
}

const moment = (at) => new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
const clock = (at) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

// ---- the gateway

/** A problem that the gateway or the network has with what was asked. */
class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

// In this tab alone, and only until it is closed.
const token = {
  get: () => sessionStorage.getItem("vaxel-token"),
  set: (value) => (value ? sessionStorage.setItem("vaxel-token", value) : sessionStorage.removeItem("vaxel-token")),
};

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "omit", cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The gateway does not answer.");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Problem(response.status, problem.detail || `It answered ${response.status}.`);
}

async function order(path, body) {
  const response = await ask(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  return response.json();
}

// ---- following

let following = null;
let status = null;
let heard = 0;

/** Follows until the page is hidden; comes back by itself, later each time. */
async function follow() {
  following?.abort();
  const mine = new AbortController();
  following = mine;
  heard = Date.now();
  for (let pause = 1; !mine.signal.aborted; pause = Math.min(2 * pause, 10)) {
    try {
      const response = await ask("status/events", { signal: mine.signal });
      await events(response.body, (text) => {
        pause = 1;
        heard = Date.now();
        show(JSON.parse(text));
      });
      // It ended in order, as it does every few minutes.
      if (Date.now() - heard < 5000) continue;
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === 401) {
        lost("token wanted", error.message);
        return askForToken();
      }
      lost("no connection", error.status ? error.message : null);
      if (!(error instanceof Problem)) console.error(error);
    }
    if (mine.signal.aborted) return;
    lost("no connection");
    await new Promise((resolve) => setTimeout(resolve, 1000 * pause));
  }
}

/** The data of each server-sent event (HTML, section 9.2.6; ours are one line). */
async function events(stream, take) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Problem(0, "The connection broke off.");
    });
    if (done) return;
    rest += value;
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      for (const line of rest.slice(0, end).split("\n")) {
        if (line.startsWith("data: ")) take(line.slice(6));
      }
      rest = rest.slice(end + 2);
    }
  }
}

function lost(word, why) {
  const state = byId("state");
  if (state.dataset.state === "live" || state.dataset.state === "drain") speak("The connection to the gateway is lost.");
  state.dataset.state = "lost";
  say(state, word);
  notice(why || null);
}

function notice(text) {
  const node = byId("notice");
  node.hidden = !text;
  say(node, text || "");
}

/** Said aloud, sparingly: what an operator would turn round for. */
function speak(text) {
  say(byId("spoken"), text);
}

// ---- drawing

const curves = new Map();

function show(next) {
  const before = status;
  status = next;
  for (const upstream of next.upstreams) remember(upstream);
  showProcess(next, before);
  if (!before) showAdvice();
  showFigures(next);
  keyed(byId("cards"), next.upstreams, (upstream) => upstream.upstream, makeCard, (card, upstream) => card.update(upstream));
  for (const upstream of next.upstreams) announce(upstream, before?.upstreams.find((other) => other.upstream === upstream.upstream));
  showConsumers(next);
  showRoutes(next);
  showAccounts(byId("refused"), next.refused, "Nothing was refused.");
  showAccounts(byId("slow"), next.slow, "Nothing took a second or longer.");
  showCalendar(next);
  showCertificates(next);
}

/** The first event has whole curves, the others their newest values. */
function remember(upstream) {
  const news = upstream.curves;
  const old = curves.get(upstream.upstream);
  const count = old ? news.newest - old.newest : Infinity;
  if (!old || count < 0 || count > news.busy.length) {
    curves.set(upstream.upstream, news);
    return;
  }
  for (const [name, values] of Object.entries(news)) {
    if (!Array.isArray(values) || count === 0) continue;
    old[name] = old[name].concat(values.slice(-count)).slice(-POINTS);
  }
  old.newest = news.newest;
}

function announce(now, before) {
  if (!before) return;
  if (now.gear !== before.gear) speak(`${now.upstream} is in ${now.gear}: ${cause(now)}.`);
  else if (now.breaker !== before.breaker) speak(`The breaker of ${now.upstream} is ${words(now.breaker)}.`);
}

function showProcess({ process, at_ms: at }, before) {
  const state = byId("state");
  const word = process.draining ? "draining" : "live";
  if (process.draining && before && !before.process.draining) speak("The gateway drains: it ends when its requests have.");
  state.dataset.state = process.draining ? "drain" : "live";
  say(state, word);
  say(byId("about"), `${process.version}, up ${span((at - process.started_ms) / 1000)}, ${number(process.connections)} connections, ${clock(at)}`);
  document.title = `Vaxel: ${status.upstreams.map((upstream) => `${upstream.upstream} ${upstream.gear}`).slice(0, 3).join(", ")}`;
  const { config } = process;
  const loaded = config.loaded_ms ? `, loaded ${moment(config.loaded_ms)}` : "";
  say(byId("config-about"), `${config.source}${loaded}, hash ${config.hash.slice(0, 12)}`);
  byId("reload").disabled = !config.reloadable || process.acts === "nobody";
  byId("drain").disabled = process.draining || process.acts === "nobody";
  byId("purge").disabled = process.acts === "nobody";
  byId("key").hidden = process.acts !== "token";
  if (process.acts === "nobody") {
    notice("The admin listener is open to the network and has no token: everybody may look, nobody may act, and what others have asked for is not shown. Give [admin] a token, or listen on 127.0.0.1.");
  } else if (!config.last_load_good) {
    notice("The last load of the configuration failed: an older one is still in force. The log, and Reload…, say why.");
  } else notice(null);
}

function showFigures({ traffic, cache, upstreams, window_s: seconds }) {
  const sum = (pick) => upstreams.reduce((all, upstream) => all + pick(upstream), 0);
  const used = sum((upstream) => upstream.busy + upstream.zombie);
  const figures = [
    ["requests per second", number(traffic.requests_per_s), `over ${span(seconds)}`],
    ["from the store", percent(traffic.hit_ratio), "of what may be stored"],
    ["refused per second", number(traffic.refused_per_s), "each with its reason"],
    ["median, clients", ms(traffic.p50_ms), "to the end of the answer"],
    ["95 %, 99 %", `${ms(traffic.p95_ms)}`, `99 %: ${ms(traffic.p99_ms)}`],
    ["slots at work", `${used} of ${sum((upstream) => upstream.slots_in_all)}`, `${sum((upstream) => upstream.queued)} wait`],
    ["store", bytes(cache.bytes), `of ${bytes(cache.capacity)}, ${number(cache.entries)} entries`],
  ];
  keyed(byId("figures"), figures, ([name]) => name,
    ([name]) => el("div", {}, el("dt", {}, name), el("dd", { class: "value" }), el("dd", { class: "under" })),
    (node, [, value, under]) => {
      say(node.children[1], value);
      say(node.children[2], under);
    });
}

const words = (breaker) => (breaker ? breaker.replace("_", " ") : "none");

function cause(upstream) {
  const rest = upstream.ends_in == null ? "" : `, ${span(upstream.ends_in)} to go`;
  switch (upstream.cause) {
    case "calm": return "no strain";
    case "queue": return "the queue is long";
    case "zombies": return "slots are at work for nobody";
    case "failures": return "calls fail";
    case "slow": return "calls are slow";
    case "breaker": {
      const trials = upstream.breaker_in == null ? "" : `, trials in ${span(upstream.breaker_in)}`;
      return upstream.breaker === "closed" ? "coming back after the breaker" : `the breaker is ${words(upstream.breaker)}${trials}`;
    }
    case "window": return `window ${upstream.window ?? ""}${rest}`;
    case "operator": return `held by hand${rest}`;
    default: return upstream.cause;
  }
}

// ---- an upstream

function makeCard({ upstream: name }) {
  const title = el("h3", {}, el("bdi", {}, name));
  const stand = el("p", { class: "stand" });
  const lever = makeLever(name);
  const slots = el("div", { class: "slots", role: "img" });
  const waiting = el("i");
  const queueWords = [el("span", {}, "queue"), el("span", { class: "number" })];
  const queue = el("div", { class: "queue" }, queueWords[0], el("div", { class: "track", "aria-hidden": "true" }, waiting), queueWords[1]);
  const facts = el("dl", { class: "facts" });
  const breaker = el("button", { type: "button", class: "small breaker", click: () => askForBreaker(name) }, "Breaker…");
  const charts = [
    makeChart("requests/s", [["hits", "store"], ["passes", "upstream"], ["refuses", "refused"]]),
    makeChart("answer time", [["curve", "median"], ["curve p95", "95 %"], ["curve p99", "99 %"]]),
    makeChart("slots, queue", [["busies", "busy"], ["zombies", "zombie"], ["curve queued", "queue"]]),
  ];
  const ribbon = el("div", { class: "ribbon", role: "img" });
  const card = el("article", { class: "card", "aria-label": `upstream ${name}` },
    el("header", {}, title, stand),
    lever.node,
    el("div", { class: "body" }, slots, queue, facts, el("div", {}, breaker)),
    el("div", { class: "charts" }, ...charts.map((chart) => chart.node), ribbon));
  card.update = (upstream) => {
    card.dataset.gear = upstream.gear;
    const strong = el("b", {}, upstream.gear);
    if (stand.textContent !== `${upstream.gear}: ${cause(upstream)}`) stand.replaceChildren(strong, `: ${cause(upstream)}`);
    lever.update(upstream);
    drawSlots(slots, upstream);
    waiting.style.width = `${Math.min(100, (100 * upstream.queued) / Math.max(1, upstream.queue_room))}%`;
    say(queueWords[1], `${upstream.queued} of ${upstream.queue_room}${upstream.queued ? `, first for ${ms(upstream.oldest_wait_ms)}` : ""}`);
    showFacts(facts, upstream);
    breaker.disabled = !upstream.breaker || status.process.acts === "nobody";
    drawCurves(charts, ribbon, curves.get(name));
  };
  return card;
}

/** The H of a gearbox: four gears, and neutral in its middle is "auto". */
function makeLever(name) {
  let held = "auto";
  const inputs = new Map();
  const group = `gear-${makeLever.count = (makeLever.count ?? 0) + 1}`;
  const knob = el("span", { class: "lever", "aria-hidden": "true" });
  const labels = ["drive", "eco", "auto", "limp", "park"].map((gear) => {
    const input = el("input", { type: "radio", name: group, value: gear });
    input.addEventListener("change", chosen);
    // A click of the pointer asks at once; the arrow keys only choose.
    input.addEventListener("click", (event) => event.detail > 0 && gear !== held && shift());
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") {
        event.preventDefault();
        shift();
      }
    });
    inputs.set(gear, input);
    return el("label", { "data-gear": gear }, input, el("span", {}, gear));
  });
  const button = el("button", { type: "button", class: "small", click: shift }, "Shift…");
  const choice = () => [...inputs].find(([, input]) => input.checked)?.[0] ?? held;
  const node = el("fieldset", { class: "shift" }, el("legend", { class: "unseen" }, `Gear of ${name}`),
    el("div", { class: "gate" }, el("i", { class: "groove left" }), el("i", { class: "groove right" }), knob, ...labels), button);

  function chosen() {
    button.disabled = choice() === held || status.process.acts === "nobody";
    say(button, choice() === held ? "Shift…" : choice() === "auto" ? "Let go…" : `Shift to ${choice()}…`);
  }
  async function shift() {
    if (choice() !== held && status.process.acts !== "nobody") await askForGear(name, choice());
    inputs.get(held).checked = true;
    chosen();
  }
  function update(upstream) {
    const now = upstream.cause === "operator" ? upstream.gear : "auto";
    const undecided = choice() !== held;
    held = now;
    if (!undecided || choice() === held) inputs.get(held).checked = true;
    knob.dataset.at = upstream.gear;
    for (const label of labels) {
      const gear = label.dataset.gear;
      label.classList.toggle("in", gear === upstream.gear);
      const input = inputs.get(gear);
      const told = gear === "auto" ? "auto: by what it shows and the calendar" : gear === upstream.gear ? `${gear}, in gear now` : gear;
      if (input.getAttribute("aria-label") !== told) input.setAttribute("aria-label", told);
    }
    chosen();
  }
  return { node, update };
}

function drawSlots(node, upstream) {
  const { slots, busy, zombie, reserved } = upstream;
  const all = Math.max(upstream.slots_in_all, slots, busy + zombie);
  const free = Math.max(0, slots - busy - zombie);
  const kept = Math.min(reserved, free);
  const withheld = Math.max(0, all - Math.max(slots, busy + zombie));
  const kinds = [["busy", busy], ["zombie", zombie], ["free", free - kept], ["kept", kept], ["withheld", withheld]];
  const told = `${all} slots: ${kinds.filter(([, count]) => count).map(([kind, count]) => `${count} ${kind === "kept" ? "kept free for a class" : kind}`).join(", ")}`;
  if (node.getAttribute("aria-label") === told) return;
  node.setAttribute("aria-label", told);
  node.title = told;
  const cells = [];
  const bar = all > 120;
  for (const [kind, count] of kinds) {
    for (let index = 0; index < (bar ? Math.min(1, count) : count); index += 1) {
      const cell = el("span", { class: "cell", "data-slot": kind });
      if (bar) cell.style.flexGrow = count;
      cells.push(cell);
    }
  }
  node.className = bar ? "slots bar" : all > 40 ? "slots many" : "slots";
  node.replaceChildren(...cells);
}

function showFacts(node, upstream) {
  const up = upstream.endpoints.filter((endpoint) => endpoint.up).length;
  const { answers, traffic } = upstream;
  const facts = [
    ["breaker", words(upstream.breaker), /open/.test(upstream.breaker ?? "")],
    ["from the store", percent(traffic.hit_ratio)],
    ["requests/s", number(traffic.requests_per_s)],
    ["refused/s", number(traffic.refused_per_s)],
    ["clients wait, 50 / 95 / 99 %", `${ms(traffic.p50_ms)} / ${ms(traffic.p95_ms)} / ${ms(traffic.p99_ms)}`],
    ["attempts/s", number(answers.attempts_per_s)],
    ["failed/s", number(answers.failed_per_s, 2), answers.failed_per_s > 0],
    ["limit", upstream.adaptive === "off" ? `${upstream.slots_in_all}, fixed` : `${upstream.slots_in_all}, ${upstream.adaptive === "shadow" ? `would be ${upstream.suggested}` : "found"}`],
    ["endpoints", `${up} of ${upstream.endpoints.length} up`, up < upstream.endpoints.length],
  ];
  if (upstream.writes_in != null) facts.push(["writes", `refused for ${span(upstream.writes_in)}`, true]);
  if (upstream.strain !== "drive" && upstream.strain !== upstream.gear) facts.push(["strain asks for", upstream.strain]);
  keyed(node, facts, ([name]) => name, ([name]) => el("div", { class: name.includes("%") ? "wide" : null }, el("dt", {}, name), el("dd")),
    (item, [, value, warns]) => {
      say(item.children[1], warns ? `${value}\u00a0!` : value);
      item.children[1].classList.toggle("warn", Boolean(warns));
    });
}

// ---- curves

const WIDTH = 300;
const HEIGHT = 60;

/** A picture with its legend; what it shows is told in words as well. */
function makeChart(title, legend) {
  const value = el("b");
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const scale = el("span", { class: "scale" });
  const signs = legend.map(([kind, name]) => {
    const sign = kind.startsWith("curve") ? svg("path", { d: "M0,4H14", class: kind }) : svg("path", { d: "M0,0H14V8H0Z", class: kind });
    return el("span", { class: "sign" }, svg("svg", { viewBox: "0 0 14 8", "aria-hidden": "true" }, sign), name);
  });
  const node = el("figure", { class: "chart" },
    el("figcaption", {}, el("span", { class: "title" }, `${title} `, value), scale, el("span", { class: "signs" }, ...signs)), picture);
  return { node, value, picture, scale };
}

const x = (index) => ((POINTS - index) / POINTS) * WIDTH;

/** The place of value `index` of `values`, whose last is now. */
const place = (values, index) => x(values.length - 1 - index);

function area(lower, upper, top) {
  if (upper.length < 2) return "";
  const y = (value) => (HEIGHT - (value / top) * (HEIGHT - 2)).toFixed(1);
  const there = upper.map((value, index) => `${place(upper, index).toFixed(1)},${y(value)}`);
  const back = lower.map((value, index) => `${place(lower, index).toFixed(1)},${y(value)}`).reverse();
  return `M${there.join("L")}L${back.join("L")}Z`;
}

function line(values, y) {
  let path = "";
  let drawn = false;
  values.forEach((value, index) => {
    if (value == null) drawn = false;
    else {
      path += `${drawn ? "L" : "M"}${place(values, index).toFixed(1)},${y(value).toFixed(1)}`;
      if (!drawn) path += "h0.5";
      drawn = true;
    }
  });
  return path;
}

function draw(chart, value, scale, told, paths) {
  say(chart.value, value);
  say(chart.scale, scale);
  chart.picture.setAttribute("aria-label", told);
  while (chart.picture.children.length < paths.length) chart.picture.append(svg("path"));
  paths.forEach(([kind, path], index) => {
    const node = chart.picture.children[index];
    node.setAttribute("class", kind);
    node.setAttribute("d", path);
  });
}

const last = (values) => values[values.length - 1];
const known = (values) => values.filter((value) => value != null);
const highest = (values) => values.reduce((most, value) => (value > most ? value : most), 0);
const plus = (...lists) => lists[0].map((_, index) => lists.reduce((sum, list) => sum + list[index], 0));

function drawCurves([traffic, latency, slots], ribbon, all) {
  if (!all || all.busy.length < 2) return;
  const zero = all.busy.map(() => 0);
  const rest = all.requests_per_s.map((count, index) => Math.max(0, count - all.hits_per_s[index] - all.refused_per_s[index]));
  const passes = plus(all.hits_per_s, rest);
  const top = Math.max(1, highest(plus(passes, all.refused_per_s)));
  draw(traffic, number(last(all.requests_per_s)), `most ${number(top)}`,
    `Requests per second over the last minutes: now ${number(last(all.requests_per_s))}, ${number(last(all.hits_per_s))} of them from the store and ${number(last(all.refused_per_s))} refused; most ${number(top)}.`,
    [["hits", area(zero, all.hits_per_s, top)], ["passes", area(all.hits_per_s, passes, top)], ["refuses", area(passes, plus(passes, all.refused_per_s), top)]]);

  // Logarithmic: a hit and a report are three decades apart. Whole decades are drawn as lines.
  const seen = known([...all.p50_ms, ...all.p99_ms]);
  const low = Math.floor(Math.log10(Math.max(0.1, Math.min(...seen, 1000))));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(1, highest(seen)))));
  const log = (value) => HEIGHT - 1 - ((Math.log10(Math.max(value, 10 ** low)) - low) / (high - low)) * (HEIGHT - 2);
  let decades = "";
  for (let decade = low + 1; decade < high; decade += 1) decades += `M0,${log(10 ** decade).toFixed(1)}H${WIDTH}`;
  draw(latency, ms(last(all.p50_ms)), `${ms(10 ** low)}–${ms(10 ** high)}`,
    seen.length ? `Time to answer over the last minutes: median ${ms(last(all.p50_ms))}, 95 percent ${ms(last(all.p95_ms))}, 99 percent ${ms(last(all.p99_ms))}; worst 99 percent ${ms(highest(known(all.p99_ms)))}.` : "The upstream was not asked in the last minutes.",
    [["grid", decades], ["curve", line(all.p50_ms, log)], ["curve p95", line(all.p95_ms, log)], ["curve p99", line(all.p99_ms, log)]]);

  const used = plus(all.busy, all.zombie);
  const most = Math.max(1, highest(used), highest(all.queued), highest(all.slots));
  const linear = (value) => HEIGHT - (value / most) * (HEIGHT - 2);
  draw(slots, `${last(used)} of ${last(all.slots)}`, `most queued ${highest(all.queued)}`,
    `Slots over the last minutes: ${last(all.busy)} busy and ${last(all.zombie)} zombie of ${last(all.slots)} now, ${last(all.queued)} waiting; most waiting ${highest(all.queued)}.`,
    [["busies", area(zero, all.busy, most)], ["zombies", area(all.busy, used, most)], ["curve limit", line(all.slots, linear)], ["curve queued", line(all.queued, linear)]]);

  const runs = [];
  for (const gear of all.gear) {
    if (runs.length && last(runs)[0] === gear) last(runs)[1] += 1;
    else runs.push([gear, 1]);
  }
  const step = status.step_ms / 1000;
  const told = `Gears of the last minutes: ${runs.slice(-8).map(([gear, count]) => `${gear} for ${span(count * step)}`).join(", then ")}.`;
  if (ribbon.getAttribute("aria-label") === told) return;
  ribbon.setAttribute("aria-label", told);
  ribbon.title = told;
  const before = el("span", { class: "before" });
  before.style.flexGrow = Math.max(0, POINTS - all.gear.length);
  ribbon.replaceChildren(before, ...runs.map(([gear, count]) => {
    const run = el("span", { "data-gear": gear }, count > 12 ? gear : count > 3 ? gear[0].toUpperCase() : "");
    run.style.flexGrow = count;
    return run;
  }));
}

// ---- the rest

function showConsumers({ consumers, consumers_in_all: all }) {
  const made = () => {
    const share = el("div", { class: "shares" }, el("div", { class: "track share", "aria-hidden": "true" }, el("i")), el("span", { class: "number" }));
    const cell = () => el("td", { class: "number" });
    return el("tr", {}, el("th", { scope: "row" }, el("bdi"), el("span", { class: "under" })), el("td", {}, share), cell(), cell(), cell());
  };
  keyed(byId("consumers"), consumers, (consumer) => consumer.consumer, made, (row, consumer) => {
    const [name, share, served, refused, waiting] = row.children;
    say(name.firstChild, consumer.consumer);
    share.querySelector("i").style.width = `${100 * (consumer.share ?? 0)}%`;
    say(share.querySelector("span"), percent(consumer.share));
    const quotas = consumer.quotas.map((quota) => `${number(quota.used)} of ${number(quota.limit)} this ${quota.per}`);
    say(name.lastChild, [`weight ${consumer.weight}`, consumer.class, ...quotas].filter(Boolean).join(", "));
    say(served, number(consumer.served_per_s));
    say(refused, number(consumer.refused_per_s));
    say(waiting, number(consumer.waiting));
  });
  say(byId("consumers-more"), all > consumers.length ? `and ${all - consumers.length} more` : "");
}

function showRoutes({ routes, routes_in_all: all }) {
  const made = () => el("tr", {}, el("th", { scope: "row" }, el("bdi"), el("span", { class: "under" })), ...Array.from({ length: 5 }, () => el("td", { class: "number" })));
  keyed(byId("routes"), routes, (route) => route.route, made, (row, route) => {
    const [name, requests, hits, refused, median, worst] = row.children;
    say(name.firstChild, route.route);
    say(name.lastChild, `to ${route.upstream}`);
    say(requests, number(route.requests_per_s));
    say(hits, route.caches ? percent(route.hit_ratio) : "off");
    say(refused, number(route.refused_per_s));
    say(median, ms(route.p50_ms));
    say(worst, ms(route.p99_ms));
  });
  say(byId("routes-more"), all > routes.length ? `and ${all - routes.length} more` : "");
}

function showAccounts(list, accounts, none) {
  if (!accounts.length) {
    if (!list.querySelector(".none")) list.replaceChildren(el("li", { class: "none" }, none));
    return;
  }
  list.querySelector(".none")?.remove();
  keyed(list, accounts, (account) => account.request_id, makeAccount, () => {});
}

function makeAccount(account) {
  const what = account.path ? `${account.method} ${account.host ?? ""}${account.path}` : "what is no request";
  const how = [
    account.reason ?? `${account.status}`, ms(account.duration_ms), account.reason ? `${account.status}` : account.cache,
    account.tries > 1 ? `${account.tries} attempts` : null, account.consumer, clock(account.time),
  ];
  return el("li", {}, el("bdi", { class: "what code", title: what }, what),
    el("span", { class: "how" }, how.filter(Boolean).join(" · ")),
    el("button", { type: "button", class: "small", "aria-label": `Why? ${what}`, click: () => tellWhy(account) }, "Why?"));
}

function showCalendar({ upstreams, at_ms: at }) {
  const windows = upstreams.flatMap((upstream) => upstream.windows.map((window) => ({ ...window, upstream: upstream.upstream })));
  windows.sort((one, other) => (one.begins_ms ?? Infinity) - (other.begins_ms ?? Infinity));
  const list = byId("calendar");
  if (!windows.length) return void (list.firstChild || list.append(el("li", { class: "none" }, "No windows are configured.")));
  list.querySelector(".none")?.remove();
  keyed(list, windows, (window) => `${window.window} ${window.upstream}`,
    (window) => el("li", {}, el("span", { class: "tag", "data-gear": window.gear }, window.gear), " ", el("b", {}, window.window), " ", el("span", { class: "when" }), el("span", { class: "quiet" }, ` ${window.upstream}${window.refuses_writes ? ", refuses writes" : ""}`)),
    (item, window) => {
      const when = window.begins_ms == null ? "not within a year"
        : window.open ? `open, ends in ${span((window.ends_ms - at) / 1000)}`
          : `begins in ${span((window.begins_ms - at) / 1000)}: ${moment(window.begins_ms)} to ${moment(window.ends_ms)}`;
      say(item.querySelector(".when"), when);
    });
}

function showCertificates({ process, at_ms: at }) {
  const list = byId("certificates");
  const { certificates } = process;
  if (!certificates.length) return void (list.firstChild || list.append(el("li", { class: "none" }, "No listener has one.")));
  list.querySelector(".none")?.remove();
  keyed(list, certificates, (one) => `${one.listener} ${one.certificate}`,
    (one) => el("li", {}, el("bdi", { class: "code" }, one.certificate), el("span", { class: "quiet" }, ` at ${one.listener} `), el("span", { class: "when" })),
    (item, one) => {
      const left = (one.ends_ms - at) / 1000;
      const when = item.querySelector(".when");
      say(when, left > 0 ? `ends in ${span(left)}, ${moment(one.ends_ms)}` : `has ended, ${moment(one.ends_ms)} !`);
      when.classList.toggle("warn", left < 14 * 86400);
    });
}

/** What to do next. It changes in minutes, not seconds. */
async function showAdvice() {
  if (document.hidden || byId("state").dataset.state === "lost") return;
  let advice;
  try {
    advice = await (await ask("advice")).json();
  } catch {
    return;
  }
  const list = byId("advice");
  if (!advice.findings.length) {
    list.replaceChildren(el("li", { class: "none" }, `Nothing to advise; watched for ${span(advice.watched_s)}.`));
    return;
  }
  list.querySelector(".none")?.remove();
  keyed(list, advice.findings, (finding) => JSON.stringify([finding.advice, finding.evidence, finding.block]), makeFinding, () => {});
}

function makeFinding({ advice, evidence, block }) {
  const parts = [el("b", {}, advice), el("ul", { class: "evidence" }, ...evidence.map((ground) => el("li", {}, ground)))];
  if (block) {
    parts.push(el("p", { class: "quiet" }, "In ", el("bdi", {}, block.below), ":"),
      el("pre", { tabindex: "0", role: "group", "aria-label": `Lines for ${block.below}` }, block.toml));
  }
  return el("li", {}, ...parts);
}

// ---- dialogs

/** Resolves when the last dialog has closed. */
let shown = Promise.resolve();

/**
 * Asks before it acts. `act` may fail: then it says why and stays open. Resolves when the dialog is closed.
 */
async function dialog(title, body, name, act) {
  const node = byId("dialog");
  // Its "close" comes as a task of its own: the last dialog must have had it before this one listens.
  do {
    if (node.open) node.close();
    await shown;
  } while (node.open);
  const form = byId("dialog-form");
  const go = byId("dialog-do");
  say(byId("dialog-title"), title);
  byId("dialog-body").replaceChildren(...body);
  say(byId("dialog-error"), "");
  say(go, name ?? "");
  go.hidden = !name;
  go.disabled = false;
  say(byId("dialog-cancel"), name ? "Cancel" : "Close");
  shown = new Promise((resolve) => {
    const submit = async (event) => {
      event.preventDefault();
      if (!name) return node.close();
      go.disabled = true;
      say(byId("dialog-error"), "");
      try {
        await act();
        node.close();
      } catch (error) {
        say(byId("dialog-error"), error.message);
        go.disabled = false;
        if (error.status === 401) {
          node.close();
          askForToken();
        }
      }
    };
    const cancel = () => node.close();
    form.addEventListener("submit", submit);
    byId("dialog-cancel").addEventListener("click", cancel);
    node.addEventListener("close", () => {
      form.removeEventListener("submit", submit);
      byId("dialog-cancel").removeEventListener("click", cancel);
      resolve();
    }, { once: true });
    node.showModal();
  });
  return shown;
}

const text = (...children) => el("p", {}, ...children);
const field = (label, input) => el("label", {}, el("span", {}, label), input);
const input = (attributes) => el("input", { type: "text", autocomplete: "off", spellcheck: "false", ...attributes });
const select = (attributes, options) => el("select", attributes, ...options.map(([value, name]) => el("option", { value }, name)));

const MEANING = {
  drive: "It gets everything again, whatever it shows.",
  eco: "No retries, refreshes only while half of it is idle; clients get stale answers wherever they could stand in for an error.",
  limp: "It gets half of its slots and nothing less urgent than its limp class.",
  park: "Nothing is sent to it. Clients get stale answers, fallbacks, or a refusal that says when to come back.",
};

function askForGear(upstream, gear) {
  if (gear === "auto") {
    return dialog(`Let go of the gear of ${upstream}?`, [text("It is driven again by what it shows and by the calendar.")], "Let go",
      () => order("gear", { upstream }));
  }
  const span = select({ name: "for" }, [["10m", "10 minutes"], ["30m", "30 minutes"], ["1h", "an hour"], ["4h", "4 hours"], ["1d", "a day"], ["7d", "a week"]]);
  span.value = "1h";
  return dialog(`Shift ${upstream} to ${gear}?`,
    [text(MEANING[gear]), field("How long it is held; then it is let go by itself", span)], `Shift to ${gear}`,
    () => order("gear", { upstream, gear, for: span.value }));
}

function askForBreaker(upstream) {
  const choices = [
    ["open", "Hold it open: nothing is sent to the upstream until you let go."],
    ["closed", "Hold it closed: everything is sent, however the upstream fails, until you let go."],
    ["release", "Let go: it decides by itself again."],
  ];
  const radios = choices.map(([value, meaning], index) => {
    const radio = el("input", { type: "radio", name: "hold", value, checked: index === 0 });
    return el("label", { class: "inline" }, radio, el("span", {}, meaning));
  });
  const now = status.upstreams.find((one) => one.upstream === upstream);
  return dialog(`The breaker of ${upstream}`,
    [text(`It is ${words(now?.breaker)} now.`), el("fieldset", {}, el("legend", {}, "What to do"), ...radios)], "Do it",
    () => {
      const hold = byId("dialog-form").elements.hold.value;
      return order("breaker", hold === "release" ? { upstream } : { upstream, hold });
    });
}

function askForPurge() {
  const extent = select({ name: "extent" }, [
    ["url", "the answers to one URL, as clients ask for it"], ["prefix", "all URLs that begin so"], ["group", "a group that origins name"],
    ["route", "a route"], ["upstream", "an upstream"], ["all", "everything"],
  ]);
  const value = input({ name: "value", placeholder: "http://HOST/PATH" });
  const soft = el("input", { type: "checkbox", name: "soft", checked: true });
  const valueField = field("Which", value);
  extent.addEventListener("change", () => (valueField.hidden = extent.value === "all"));
  return dialog("Purge stored answers?", [
    text("What is purged has to be fetched from the backend again."),
    field("Extent", extent), valueField,
    el("label", { class: "inline" }, soft, el("span", {}, "softly: they become stale, and still stand in where the backend fails")),
  ], "Purge", async () => {
    const body = { soft: soft.checked, [extent.value]: extent.value === "all" ? true : value.value.trim() };
    if (extent.value !== "all" && !value.value.trim()) throw new Problem(0, "Say which.");
    const done = await order("purge", body);
    speak(`${done.purged} answers purged.`);
    notice(`${done.purged} answers ${done.depth === "soft" ? "made stale" : "taken out"}: ${done.extent}`);
  });
}

function askForReload() {
  return dialog("Load the configuration anew?", [
    text("The file ", el("code", {}, el("bdi", {}, status.process.config.source)), " is read. If it has a mistake, nothing changes and the mistake is told here. Slots, breakers, cache and connections go on."),
  ], "Reload", async () => {
    const done = await order("reload", {});
    speak("The configuration is reloaded.");
    if (done.warnings) throw new Problem(0, `Reloaded. It warns:\n${done.warnings}`);
  });
}

function askForDrain() {
  const word = input({ name: "word", "aria-describedby": "drain-why" });
  return dialog("End this process?", [
    text(`It takes no new connections, lets its ${number(status.process.connections)} connections finish for at most ${span(status.process.drain_s)}, and then it is gone. Whoever supervises it may start it again.`),
    field("Type drain to confirm", word),
  ], "Drain", () => {
    if (word.value.trim() !== "drain") throw new Problem(0, "Type the word drain, to be sure that it is meant.");
    return order("drain", {});
  });
}

let asking = false;

async function askForToken() {
  if (asking) return;
  asking = true;
  const value = input({ type: "password", name: "token", autocomplete: "off" });
  await dialog("The admin token", [
    text("It is the ", el("code", {}, "token"), " of ", el("code", {}, "[admin]"), ". This tab keeps it until it is closed, and sends it to this listener only."),
    field("Token", value),
  ], "Use it", async () => {
    const before = token.get();
    token.set(value.value.trim());
    try {
      await ask("upstreams");
    } catch (error) {
      token.set(before);
      throw new Problem(0, error.status === 401 ? "That is not the token." : error.message);
    }
  });
  asking = false;
  if (token.get()) follow();
}

async function tellWhy(account) {
  const body = el("ol");
  const told = dialog(`Why: ${account.request_id}`, [body], null);
  try {
    const { accounts } = await (await ask(`why?id=${encodeURIComponent(account.request_id)}`)).json();
    body.replaceChildren(...accounts.flatMap((one) => one.story.map((sentence) => el("li", {}, el("bdi", {}, sentence)))));
  } catch (error) {
    say(byId("dialog-error"), error.message);
  }
  return told;
}

async function showConfig() {
  if (!byId("config").open) return;
  try {
    const config = await (await ask("config")).json();
    say(byId("config-text"), config.text);
  } catch (error) {
    say(byId("config-text"), error.message);
  }
}

// ---- to work

byId("purge").addEventListener("click", askForPurge);
byId("reload").addEventListener("click", askForReload);
byId("drain").addEventListener("click", askForDrain);
byId("key").addEventListener("click", askForToken);
byId("config").addEventListener("toggle", showConfig);
// Nobody looks: nothing is made for this page.
document.addEventListener("visibilitychange", () => (document.hidden ? following?.abort() : follow()));
setInterval(() => {
  const silent = Date.now() - heard;
  if (heard && silent > 5000 && !document.hidden && byId("state").dataset.state !== "lost") lost(`silent for ${span(silent / 1000)}`);
}, 1000);
setInterval(showAdvice, 30000);
follow();
