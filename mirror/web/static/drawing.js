// Which runs, metrics and groups are drawn, and how.

import { get, Unreachable } from "./api.js";
import { Charts } from "./charts.js";
import { choose } from "./chooser.js";
import { chip, look } from "./colours.js";
import { byId, element, showText } from "./dom.js";
import { enlarge, follow } from "./enlarged.js";
import * as format from "./format.js";
import { roving } from "./roving.js";
import { change, session, showError } from "./session.js";
import { toComparison } from "./view.js";

const DRAWN_AT_FIRST = 5;
const KEYS_AT_FIRST = 6;
const POINTS = 600;
const MOST_RUNS = 100;
const MOST_COMPARED = 6;
const FIELDS = { group_name: "group", job_type: "job type", sweep: "sweep", state: "state", username: "user", host: "host", tags: "tags" };

let drawing = null; // aborts what the last call of `draw` waits for
let lines = []; // what is drawn: {id, name, title, colour, dash}
let grouped = ""; // the key whose groups they are
let selected = new Set(); // the paths of the runs that are drawn, or in groups that are
let curveKeys = []; // the keys that can be drawn
const slots = new Map();

let selectionChanged = () => {};
export const whenSelectionChanges = (callback) => (selectionChanged = callback);

const charts = new Charts(byId("charts"), enlarge);
const renewStops = roving(byId("legend"), "button");

// ---------------------------------------------------------------- runs

// The runs that are drawn one by one, or whose keys can be drawn.
export function paths() {
  const { source, view } = session;
  if (Array.isArray(view.runs)) return view.runs;
  const most = view.runs === "all" || view.group ? MOST_RUNS : DRAWN_AT_FIRST;
  const first = [];
  for (let index = 0; source && index < source.total && first.length < most; index += 1) {
    const row = source.rowAt(index);
    if (!row?.path) break;
    first.push(row.path);
  }
  return first;
}

export function setRuns(runs) {
  change({ runs: runs === "all" ? runs : [...new Set(runs)].slice(0, MOST_RUNS) });
  draw();
}

// All runs that were found, however many: they are drawn as far as they can be.
const everyRun = () => session.view.runs === "all" || (session.view.group && session.view.runs === null);

export const isDrawn = (path) => Boolean(everyRun()) || selected.has(path);
export const colouredAs = (path) => (session.view.group ? undefined : lines.find(({ id }) => id === path)?.colour);

export function forgetColours() {
  slots.clear();
}

// The first look that no other drawn run has.
function lookOf(path, chosen) {
  for (const other of slots.keys()) if (!chosen.includes(other)) slots.delete(other);
  if (!slots.has(path)) {
    const taken = new Set(slots.values());
    let free = 0;
    while (taken.has(free)) free += 1;
    slots.set(path, free);
  }
  return look(slots.get(path));
}

// ---------------------------------------------------------------- charts

export async function draw() {
  drawing?.abort();
  drawing = new AbortController();
  const { signal } = drawing;
  const { view } = session;
  const chosen = paths();
  // Groups are known only when they are answered; until then no others stand in their place.
  if (!view.group) lines = chosen.map((path) => runLine(path, chosen));
  else if (view.group !== grouped) lines = [];
  showSelection(chosen);
  byId("charts").setAttribute("aria-busy", "true");
  try {
    const described = chosen.length ? await get("/api/history/keys", { run: chosen }, signal) : { keys: [], names: {}, warnings: [] };
    signal.throwIfAborted(); // an answer that came just before the next call must not undo what that one shows
    curveKeys = described.keys;
    for (const [path, name] of Object.entries(described.names)) session.names.set(path, name);
    showAxes();
    const keys = chosen.length ? (view.keys ?? defaultKeys()) : [];
    const answer = await (view.group && chosen.length ? groupCurves(keys, signal) : runCurves(chosen, keys, signal));
    signal.throwIfAborted();
    lines = answer.lines;
    grouped = view.group;
    const cut = everyRun() && !view.group && session.source.total > chosen.length
      ? [`the first ${chosen.length} of ${format.count(session.source.total, "run")} are drawn; group them to draw the means of more`] : [];
    showSelection(chosen);
    await charts.draw(keys, lines, answer.curves, view);
    signal.throwIfAborted();
    follow(charts.figures);
    showText(byId("charts-problem"), "");
    showText(byId("charts-warning"), [...described.warnings, ...answer.warnings, ...cut].join(" · "));
    showText(byId("charts-hint"), !session.source?.total && !chosen.length ? "" : !chosen.length ? "Tick runs in the table to draw their metrics here."
      : keys.length ? "" : curveKeys.length ? "Choose metrics to draw." : "These runs logged no numbers.");
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof Unreachable) {
      session.again ??= draw; // what is drawn stays
      return;
    }
    lines = view.group ? [] : lines;
    showSelection(chosen);
    charts.draw([], [], [], view);
    for (const id of ["charts-warning", "charts-hint"]) showText(byId(id), "");
    showError(byId("charts-problem"), error);
  } finally {
    if (!signal.aborted) byId("charts").removeAttribute("aria-busy");
  }
}

async function runCurves(chosen, keys, signal) {
  const { view } = session;
  const query = { run: chosen, key: keys, x: view.x ?? "", points: POINTS, mean: view.smoothing > 0 };
  const answer = keys.length ? await get("/api/history", query, signal) : { curves: [], warnings: [] };
  return { ...answer, lines: chosen.map((path) => runLine(path, chosen)), curves: answer.curves.map((curve) => ({ ...curve, line: curve.run })) };
}

function runLine(path, chosen) {
  return { id: path, name: session.names.get(path) ?? path.split("/")[2], ...lookOf(path, chosen) };
}

async function groupCurves(keys, signal) {
  const { source, view } = session;
  const run = Array.isArray(view.runs) || !source.query ? paths() : [];
  const query = { project: view.project, filter: source.query?.filter ?? "", order: view.order, run, group: view.group, key: keys, x: view.x ?? "" };
  const answer = await get("/api/groups", query, signal);
  return {
    ...answer,
    lines: answer.groups.map(({ label, runs }, at) => ({ id: label, name: `${label} (${format.count(runs, "run")})`, title: label, ...look(at) })),
    curves: answer.curves.map((curve) => ({ ...curve, line: curve.group })),
  };
}

// The most interesting keys come first: losses, then scores; counters and settings come last.
function defaultKeys() {
  const rank = (name) => [/loss/i, /acc|reward|return|score|bleu|f1|perplexity/i].findIndex((words) => words.test(name));
  const place = (name) => (/^_|(^|[/._])(epoch|lr|learning_rate|step)s?$/i.test(name) ? 9 : rank(name) < 0 ? 5 : rank(name));
  const ranked = curveKeys.map(({ name }, at) => ({ name, at, place: place(name) }));
  ranked.sort((one, other) => one.place - other.place || one.at - other.at);
  return ranked.filter(({ name }) => !name.startsWith("_")).slice(0, KEYS_AT_FIRST).map(({ name }) => name);
}

// ---------------------------------------------------------------- selection and legend

function showSelection(chosen) {
  const { view } = session;
  selected = new Set(chosen);
  selectionChanged();
  const legend = byId("legend");
  const at = [...legend.children].findIndex((item) => item.contains(document.activeElement));
  legend.setAttribute("aria-label", view.group ? "Drawn groups" : "Drawn runs");
  legend.replaceChildren(...lines.map(view.group ? groupItem : runItem));
  if (at >= 0) legend.children[Math.min(at, legend.children.length - 1)]?.querySelector("button")?.focus();
  renewStops();
  byId("clear-button").disabled = !chosen.length;
  const compared = view.runs === "all" ? [] : chosen;
  const some = compared.length > 1 && compared.length <= MOST_COMPARED;
  byId("compare-link").hidden = !some;
  if (some) byId("compare-link").href = toComparison(compared);
  byId("compare-link").textContent = `Compare ${compared.length} runs`;
}

const groupItem = (line) => element("li", { class: "group" }, chip(line), element("span", {}, line.name));

function runItem(run) {
  const remove = () => setRuns(paths().filter((path) => path !== run.id));
  return element(
    "li",
    {},
    element(
      "button",
      { type: "button", title: `${run.id}: no longer draw`, "aria-label": `Remove ${run.name} from the charts`, onclick: remove },
      chip(run),
      element("span", {}, run.name),
    ),
  );
}

// ---------------------------------------------------------------- controls

function fillSelect(select, chosen, groups) {
  const known = groups.flatMap(([, options]) => options);
  const wanted = chosen && !known.some(([value]) => value === chosen) ? [["not known here", [[chosen, chosen]]]] : [];
  const signature = JSON.stringify([...groups, ...wanted]);
  if (select.signature !== signature) {
    select.signature = signature;
    select.replaceChildren(
      ...[...groups, ...wanted].flatMap(([title, options]) => {
        const made = options.map(([value, text]) => element("option", { value }, text));
        return title && made.length ? [element("optgroup", { label: title }, ...made)] : made;
      }),
    );
  }
  select.value = chosen;
}

function showAxes() {
  const { known, view } = session;
  const logged = curveKeys.filter(({ name }) => !["_step", "_runtime", "_timestamp"].includes(name));
  fillSelect(byId("x-axis"), view.x ?? "", [
    ["", [["", "as defined"], ["_step", "step"], ["_runtime", "run time"], ["_timestamp", "clock time"]]],
    ["logged keys", logged.map(({ name }) => [name, name])],
  ]);
  const keys = (known?.keys ?? []).map(({ name, varied }) => ({ name, varied }));
  fillSelect(byId("group-by"), view.group, [
    ["", [["", "nothing"]]],
    ["config", keys.filter(({ name, varied }) => varied && name.startsWith("config.")).map(({ name }) => [name, name.slice(7)])],
    ["run", Object.entries(FIELDS)],
    ["same in all of the newest runs", keys.filter(({ name, varied }) => !varied && name.startsWith("config.")).map(({ name }) => [name, name.slice(7)])],
  ]);
}

export function showControls() {
  const { view } = session;
  showAxes();
  byId("smoothing").value = view.smoothing;
  byId("smoothing-shown").textContent = view.smoothing ? view.smoothing.toFixed(2) : "off";
  byId("log-scale").checked = view.log;
}

byId("keys-button").addEventListener("click", () => {
  const set = (keys) => {
    change({ keys });
    draw();
  };
  choose("Metrics", {
    options: curveKeys.map(({ name, runs }) => ({ name, note: format.count(runs, "run") })),
    chosen: session.view.keys ?? defaultKeys(),
    changed: set,
    reset: () => set(null),
  });
});

byId("clear-button").addEventListener("click", () => setRuns([]));

for (const [id, event, fields] of [
  ["x-axis", "change", ({ value }) => ({ x: value || null })],
  ["group-by", "change", ({ value }) => ({ group: value })],
  ["smoothing", "input", ({ value }) => ({ smoothing: Number(value) })],
  ["log-scale", "change", ({ checked }) => ({ log: checked })],
]) {
  byId(id).addEventListener(event, ({ target }) => {
    change(fields(target));
    showControls();
    draw();
  });
}
