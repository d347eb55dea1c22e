// The page: the user's choices, the requests that they lead to, and updates when the mirror is published.

import { get } from "./api.js";
import { Charts, colour } from "./charts.js";
import { choose } from "./chooser.js";
import * as details from "./details.js";
import { byId, element, showText } from "./dom.js";
import * as format from "./format.js";
import { Answered, Found, isSql } from "./runs.js";
import { Table } from "./table.js";
import * as views from "./view.js";

const POLL = 2000;
const DRAWN_AT_FIRST = 5;
const KEYS_AT_FIRST = 6;
const POINTS = 600;
const MOST_RUNS = 100;
const KINDS = {
  name: "name", state: "state", duration_s: "duration",
  created_at: "time", heartbeat_at: "time", updated_at: "time", synced_at: "time",
};
const TITLES = {
  run_id: "id", created_at: "created", heartbeat_at: "heartbeat", updated_at: "updated", duration_s: "duration",
  username: "user", group_name: "group", job_type: "job type", git_commit: "commit", history_rows: "history rows",
  synced_at: "mirrored",
};

let view = views.read();
let state = null; // what /api/state answered
let known = null; // what /api/keys answered for the project
let source = null; // the runs that were found
let drawn = []; // the runs that are drawn: {path, name, colour}
let curveKeys = []; // what /api/history/keys answered for them
let renewed = ""; // the snapshot that all of this is of
let turn = 0; // a query that was overtaken by another is dropped
const names = new Map();
const slots = new Map();

const table = new Table(byId("table-box"), byId("table"), {
  choose: (row, wanted) => setRuns(wanted ? [...paths(), row.path] : paths().filter((path) => path !== row.path)),
  open: (row) => details.show(row.path).catch(report("problem")),
  order: (column) => {
    const at = view.order.slice(1) === column.order ? view.order[0] : "";
    change({ order: { "": "-", "-": "+" }[at] ? `${{ "": "-", "-": "+" }[at]}${column.order}` : "-created_at" });
    find();
  },
});
const charts = new Charts(byId("charts"), byId("readout"));

function change(fields) {
  Object.assign(view, fields);
  views.write(view);
}

function report(id) {
  return (error) => {
    if (error.name !== "AbortError") showText(byId(id), error.message);
  };
}

// ---------------------------------------------------------------- projects

function showProjects() {
  const { projects } = state;
  byId("server").textContent = state.daemon.base_url ?? "";
  byId("projects").replaceChildren(...projects.map(projectEntry));
  byId("project-select").replaceChildren(...projects.map(({ project }) => element("option", {}, project)));
  byId("project-select").value = view.project;
  const mirrored = projects.length > 0;
  byId("project").hidden = !mirrored;
  showText(byId("empty"), mirrored ? "" : "Nothing is mirrored yet. The first pass of the daemon pulls the projects of config.toml; this page shows them as they arrive.");
  const here = projects.find(({ project }) => project === view.project);
  const failed = here ? Math.max(here.set_aside, state.daemon.failed_runs?.[here.project] ?? 0) : 0;
  showText(byId("troubles"), [
    ...(state.daemon.errors ?? []),
    ...(here?.last_error ? [here.last_error] : []),
    ...(failed ? [`${format.count(failed, "run")} could not be mirrored whole; tried again later`] : []),
  ].join(" · "));
  showAges();
}

function projectEntry({ project, runs, running, last_success_at: success, last_error: problem }) {
  const [entity, name] = project.split("/");
  const facts = [format.count(runs, "run"), ...(running ? [`${running} running`] : [])].join(" · ");
  const current = project === view.project;
  return element(
    "li",
    {},
    element(
      "button",
      { type: "button", "aria-current": current ? "true" : null, onclick: () => openProject(project) },
      element("span", { class: "name" }, element("span", {}, `${entity}/`), name),
      element("small", {}, facts),
      problem
        ? element("small", { class: "bad", title: problem }, "last pass failed")
        : element("small", { "data-since": success ?? "" }),
    ),
  );
}

function showAges() {
  for (const line of document.querySelectorAll("[data-since]")) {
    const text = line.dataset.since ? `mirrored ${format.age(line.dataset.since)}` : "not mirrored yet";
    if (line.textContent !== text) line.textContent = text;
  }
  const here = state?.projects.find(({ project }) => project === view.project);
  if (!here) return;
  const parts = [
    format.count(here.runs, "run"),
    ...(here.running ? [`${here.running} running`] : []),
    format.count(here.history_rows, "history row"),
    here.last_success_at ? `mirrored ${format.age(here.last_success_at)}` : "not mirrored yet",
  ];
  const text = parts.join(" · ");
  if (byId("freshness").textContent !== text) byId("freshness").textContent = text;
}

async function openProject(project) {
  if (project !== view.project) {
    change({ project, find: "", order: "-created_at", columns: null, runs: null, keys: null });
    slots.clear();
  }
  known = null;
  byId("columns-button").disabled = true;
  byId("title").textContent = project;
  document.title = `${project} · wandb-mirror`;
  byId("filter").value = view.find;
  showProjects();
  try {
    const keys = await get("/api/keys", { project });
    if (project !== view.project) return;
    known = keys;
  } catch (error) {
    report("problem")(error);
    return;
  }
  byId("columns-button").disabled = false;
  await find();
}

// ---------------------------------------------------------------- runs

function column(name) {
  const description = [...known.columns, ...known.keys].find((each) => each.name === name);
  const [group, ...rest] = name.split(".");
  const document = ["config", "summary"].includes(group) && rest.length;
  return {
    name,
    title: document ? rest.join(".") : (TITLES[name] ?? name),
    group: document ? group : "",
    kind: KINDS[name] ?? "",
    number: false,
    order: description?.order ?? null,
  };
}

// Columns by which runs can be distinguished at a glance.
function defaultColumns() {
  const telling = (prefix, most, fits) =>
    known.keys.filter((key) => key.name.startsWith(prefix) && fits(key)).slice(0, most).map((key) => key.name);
  const plain = (key) => !/^\w+\._|\._type$|sha256|\.path$/.test(key.name);
  return [
    "name", "state", "created_at", "duration_s",
    ...telling("summary.", 4, (key) => plain(key) && key.varied && !/^summary\..*\./.test(key.name)),
    ...telling("config.", 4, (key) => plain(key) && key.varied),
  ];
}

const columns = () => view.columns ?? defaultColumns();

async function find({ keepPlace = false } = {}) {
  if (!known) return; // the view keeps what was requested in the meantime, and find runs again later
  const thisTurn = ++turn;
  source?.close();
  const names_ = ["name", ...columns().filter((name) => name !== "name")].map(column);
  const next = isSql(view.find)
    ? new Answered(view.project, view.find)
    : new Found(view.project, view.find, view.order, names_, () => table.refresh());
  byId("table-box").setAttribute("aria-busy", "true");
  try {
    await next.begin();
  } catch (error) {
    if (thisTurn === turn) {
      report("problem")(error);
      byId("filter").setAttribute("aria-invalid", "true");
      byId("table-box").removeAttribute("aria-busy");
    }
    return;
  }
  if (thisTurn !== turn) return;
  byId("table-box").removeAttribute("aria-busy");
  byId("filter").removeAttribute("aria-invalid");
  showText(byId("problem"), "");
  source = next;
  const plain = source.rowAt.bind(source);
  source.rowAt = (index) => withPageState(plain(index));
  table.show(source, { keepPlace });
  showCount();
  await drawChosen();
}

// A row with what only the page knows about it.
function withPageState(row) {
  if (!row?.path) return row;
  const place = source.columns.findIndex((each) => each.kind === "name");
  row.name = (place >= 0 && row.cells[place]) || row.id;
  names.set(row.path, row.name);
  const run = drawn.find(({ path }) => path === row.path);
  row.selected = Boolean(run);
  row.colour = run?.colour;
  return row;
}

function showCount() {
  const all = state.projects.find(({ project }) => project === view.project)?.runs ?? 0;
  const sql = isSql(view.find);
  const some = sql ? format.count(source.total, "row")
    : view.find.trim() ? `${format.number(String(source.total))} of ${format.count(all, "run")}` : format.count(all, "run");
  byId("count").textContent = some;
  byId("warnings").textContent = source.warnings.join(" · ");
}

// ---------------------------------------------------------------- charts

function paths() {
  if (view.runs) return view.runs;
  const first = [];
  for (let index = 0; source && index < source.total && first.length < DRAWN_AT_FIRST; index += 1) {
    const row = source.rowAt(index);
    if (!row?.path) break;
    first.push(row.path);
  }
  return first;
}

function setRuns(runs) {
  change({ runs: [...new Set(runs)].slice(0, MOST_RUNS) });
  drawChosen();
}

// The first colour that no other drawn run has.
function slot(path, chosen) {
  for (const other of slots.keys()) if (!chosen.includes(other)) slots.delete(other);
  if (!slots.has(path)) {
    const taken = new Set(slots.values());
    let free = 0;
    while (taken.has(free)) free += 1;
    slots.set(path, free);
  }
  return slots.get(path);
}

async function drawChosen() {
  const thisTurn = turn;
  const chosen = paths();
  drawn = chosen.map((path) => ({ path, name: names.get(path) ?? path.split("/")[2], colour: colour(slot(path, chosen)) }));
  table.refresh();
  showLegend();
  const nothing = drawn.length ? "" : "Tick runs in the table to draw their metrics here.";
  showText(byId("charts-hint"), nothing);
  byId("clear-button").disabled = !drawn.length;
  try {
    curveKeys = drawn.length ? await get("/api/history/keys", { run: chosen }) : [];
    const keys = drawn.length ? (view.keys ?? defaultKeys()) : [];
    const query = { run: chosen, key: keys, x: view.x ?? "", points: POINTS, mean: view.smoothing > 0 };
    const curves = keys.length ? await get("/api/history", query) : [];
    if (thisTurn !== turn || chosen.join() !== paths().join()) return;
    await charts.draw(keys, drawn, curves, view);
    if (drawn.length && !keys.length) {
      showText(byId("charts-hint"), curveKeys.length ? "Choose metrics to draw." : "These runs logged no numbers.");
    }
    showText(byId("charts-problem"), "");
    await learnNames(chosen);
  } catch (error) {
    report("charts-problem")(error);
  }
}

// Runs of a link need a name even if their rows are not in view.
async function learnNames(chosen) {
  const unnamed = chosen.filter((path) => !names.has(path));
  if (!unnamed.length) return;
  for (const path of unnamed) {
    const run = await get("/api/run", { run: path }).catch(() => null);
    names.set(path, run?.name || path.split("/")[2]);
  }
  for (const run of drawn) run.name = names.get(run.path) ?? run.name;
  showLegend();
}

// The most interesting keys come first: losses, then scores; counters and settings come last.
function defaultKeys() {
  const rank = (name) => [/loss/i, /acc|reward|return|score|bleu|f1|perplexity/i].findIndex((words) => words.test(name));
  const place = (name) => (/^_|(^|[/._])(epoch|lr|learning_rate|step)s?$/i.test(name) ? 9 : rank(name) < 0 ? 5 : rank(name));
  const ranked = curveKeys.map(({ name }, at) => ({ name, at, place: place(name) }));
  ranked.sort((one, other) => one.place - other.place || one.at - other.at);
  return ranked.filter(({ name }) => !name.startsWith("_")).slice(0, KEYS_AT_FIRST).map(({ name }) => name);
}

function showLegend() {
  const legend = byId("legend");
  const at = [...legend.children].findIndex((item) => item.contains(document.activeElement));
  legend.replaceChildren(
    ...drawn.map((run) =>
      element(
        "li",
        {},
        element(
          "button",
          {
            type: "button",
            title: `${run.path}: no longer draw`,
            "aria-label": `Remove ${run.name} from the charts`,
            onclick: () => setRuns(paths().filter((path) => path !== run.path)),
          },
          element("span", { class: "chip", colour: run.colour }),
          element("span", {}, run.name),
        ),
      ),
    ),
  );
  if (at >= 0) legend.children[Math.min(at, legend.children.length - 1)]?.querySelector("button").focus();
}

// ---------------------------------------------------------------- user actions

byId("find").addEventListener("submit", (event) => {
  event.preventDefault();
  change({ find: byId("filter").value });
  find();
});

let typing = 0;
byId("filter").addEventListener("input", () => {
  const text = byId("filter").value;
  clearTimeout(typing);
  // Plain words are searched while they are typed; an incomplete filter or statement would only be an error.
  if (text.trim().startsWith("{") || isSql(text)) return;
  typing = setTimeout(() => {
    if (byId("filter").value !== text || text === view.find) return;
    change({ find: text });
    find();
  }, 250);
});

byId("project-select").addEventListener("change", (event) => openProject(event.target.value));

byId("columns-button").addEventListener("click", () => {
  const all = [
    ...known.columns.map(({ name }) => ({ name })),
    ...known.keys.map(({ name, runs }) => ({ name, note: format.count(runs, "run") })),
  ];
  choose("Columns", {
    options: all.filter(({ name }) => name !== "name"),
    chosen: columns(),
    changed: (names_) => {
      change({ columns: names_ });
      find({ keepPlace: true });
    },
    reset: () => {
      change({ columns: null });
      find({ keepPlace: true });
    },
  });
});

byId("keys-button").addEventListener("click", () => {
  choose("Metrics", {
    options: curveKeys.map(({ name, runs }) => ({ name, note: format.count(runs, "run") })),
    chosen: view.keys ?? defaultKeys(),
    changed: (keys) => {
      change({ keys });
      drawChosen();
    },
    reset: () => {
      change({ keys: null });
      drawChosen();
    },
  });
});

byId("clear-button").addEventListener("click", () => setRuns([]));

byId("x-axis").addEventListener("change", (event) => {
  change({ x: event.target.value || null });
  drawChosen();
});

byId("smoothing").addEventListener("input", (event) => {
  change({ smoothing: Number(event.target.value) });
  showControls();
  drawChosen();
});

byId("log-scale").addEventListener("change", (event) => {
  change({ log: event.target.checked });
  drawChosen();
});

function showControls() {
  byId("x-axis").value = view.x ?? "";
  byId("smoothing").value = view.smoothing;
  byId("smoothing-shown").textContent = view.smoothing ? view.smoothing.toFixed(2) : "off";
  byId("log-scale").checked = view.log;
}

addEventListener("hashchange", () => {
  view = views.read();
  slots.clear();
  showControls();
  if (state) begin();
});

// ---------------------------------------------------------------- updates

function begin() {
  const projects = state.projects.map(({ project }) => project);
  if (!projects.includes(view.project)) change({ project: newest() ?? "" });
  if (view.project) openProject(view.project);
  else showProjects();
}

// The first project with a running run, else the first project.
function newest() {
  return (state.projects.find(({ running }) => running) ?? state.projects[0])?.project;
}

async function checkState() {
  let trouble = "";
  try {
    const former = state;
    state = await get("/api/state");
    if (former === null || !former.projects.length) begin();
    else if (state !== former) showProjects();
    if (renewed !== state.snapshot) await renew();
  } catch (error) {
    trouble = error.status === 401 ? "This page is locked again: open it with `mirror open`."
      : error.status ? error.message : "The daemon does not answer; trying again …";
  }
  byId("connection").textContent = trouble;
}

// The mirror was published again: update what is in view, in place.
async function renew() {
  if (!source || !known || document.querySelector("dialog[open]")) return;
  const thisTurn = turn;
  renewed = state.snapshot;
  if (!known.keys.length) {
    known = await get("/api/keys", { project: view.project });
    if (known.keys.length) return find();
  }
  const { scrollTop, clientHeight } = byId("table-box");
  const first = Math.max(0, Math.floor(scrollTop / 30) - 12);
  const automatic = view.runs === null ? paths().join() : "";
  await source.renew(first, first + Math.ceil(clientHeight / 30) + 24);
  if (thisTurn !== turn) return;
  // A new run must not push another one out of the charts that the user is looking at.
  if (automatic && paths().join() !== automatic) view.runs = drawn.map(({ path }) => path);
  showCount();
  await drawChosen();
}

async function keepPolling() {
  if (!document.hidden) await checkState();
  setTimeout(keepPolling, POLL);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) checkState();
});
setInterval(showAges, 1000);
if (location.search) history.replaceState(null, "", `${location.pathname}${location.hash}`);
showControls();
keepPolling();
