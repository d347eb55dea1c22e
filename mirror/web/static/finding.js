// The search box, and the table of the runs that it finds.

import { Unreachable } from "./api.js";
import { choose } from "./chooser.js";
import { byId, showText } from "./dom.js";
import { colouredAs, draw, isDrawn, paths, setRuns, whenSelectionChanges } from "./drawing.js";
import * as format from "./format.js";
import { Answered, Found, isSql, Nothing } from "./runs.js";
import { change, session, showError } from "./session.js";
import { Table } from "./table.js";
import { toRun } from "./view.js";

const KINDS = {
  name: "name", state: "state", duration_s: "duration",
  created_at: "time", heartbeat_at: "time", updated_at: "time", synced_at: "time",
};
const TITLES = {
  run_id: "id", created_at: "created", heartbeat_at: "heartbeat", updated_at: "updated", duration_s: "duration",
  username: "user", group_name: "group", job_type: "job type", git_commit: "commit", history_rows: "history rows",
  synced_at: "mirrored",
};

let turn = 0; // a query that was overtaken by another is dropped
let asked = null; // the query that is being answered

const table = new Table(byId("table-box"), byId("table"), {
  choose: (row, wanted) => setRuns(wanted ? [...paths(), row.path] : paths().filter((path) => path !== row.path)),
  chooseAll: (wanted) => setRuns(wanted ? "all" : []),
  link: (row) => toRun(row.path),
  order: (column) => {
    const at = session.view.order.slice(1) === column.order ? session.view.order[0] : "";
    change({ order: { "": "-", "-": "+" }[at] ? `${{ "": "-", "-": "+" }[at]}${column.order}` : "-created_at" });
    find();
  },
});

whenSelectionChanges(() => table.refresh());

export const focusTable = () => table.focus();

function column(name) {
  const description = [...session.known.columns, ...session.known.keys].find((each) => each.name === name);
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
  const { keys } = session.known;
  const telling = (prefix, most, fits) =>
    keys.filter((key) => key.name.startsWith(prefix) && fits(key)).slice(0, most).map((key) => key.name);
  const plain = (key) => !/^\w+\._|\._type$|sha256|\.path$/.test(key.name);
  return [
    "name", "state", "created_at", "duration_s",
    ...telling("summary.", 4, (key) => plain(key) && key.varied && !/^summary\..*\./.test(key.name)),
    ...telling("config.", 4, (key) => plain(key) && key.varied),
  ];
}

const columns = () => session.view.columns ?? defaultColumns();

// Nothing of a former question stays beside the next one, or beside an error.
export function clearFound() {
  turn += 1;
  asked?.close();
  session.source?.close();
  session.source = new Nothing();
  table.show(session.source);
  byId("count").textContent = "";
  byId("warnings").textContent = "";
  byId("table-box").hidden = false;
  byId("table-box").removeAttribute("aria-busy");
  byId("filter").removeAttribute("aria-invalid");
  showText(byId("problem"), "");
}

export async function find({ keepPlace = false } = {}) {
  const { view } = session;
  if (!session.known) return; // the view keeps what was requested in the meantime, and find runs again later
  const thisTurn = ++turn;
  asked?.close();
  session.source?.close();
  const wanted = ["name", ...columns().filter((name) => name !== "name")].map(column);
  const failed = (error) => showError(byId("problem"), error);
  const next = isSql(view.find)
    ? new Answered(view.project, view.find)
    : new Found(view.project, view.find, view.order, wanted, () => table.refresh(), failed);
  asked = next;
  byId("table-box").setAttribute("aria-busy", "true");
  try {
    await next.begin();
  } catch (error) {
    if (thisTurn !== turn) return;
    if (error instanceof Unreachable) {
      session.again = () => find({ keepPlace });
      return;
    }
    clearFound();
    byId("table-box").hidden = true;
    failed(error);
    byId("filter").setAttribute("aria-invalid", String(error.status === 400));
    await draw();
    return;
  }
  if (thisTurn !== turn) return;
  byId("table-box").removeAttribute("aria-busy");
  byId("filter").removeAttribute("aria-invalid");
  showText(byId("problem"), "");
  const plain = next.rowAt.bind(next);
  next.rowAt = (index) => withPageState(plain(index), next);
  session.source = next;
  byId("table-box").hidden = false;
  table.show(next, { keepPlace });
  showCount();
  await draw();
}

// The mirror was published again: update the rows in view, in place.
export async function renewFound() {
  const { source, view } = session;
  if (!source || source instanceof Nothing) return draw();
  const thisTurn = turn;
  const automatic = view.runs === null ? paths() : [];
  try {
    await source.renew(...table.range());
  } catch (error) {
    if (thisTurn !== turn) return undefined;
    if (error instanceof Unreachable) session.again = find;
    else showError(byId("problem"), error);
    return undefined;
  }
  if (thisTurn !== turn) return undefined;
  showText(byId("problem"), "");
  // A new run must not push another one out of the charts that the user is looking at.
  // What the user ticked in the meantime stays.
  const moved = view.runs === null && paths().join() !== automatic.join();
  if (moved && automatic.length && !view.group) view.runs = automatic;
  showCount();
  return draw();
}

// A row with what only the page knows about it.
function withPageState(row, source) {
  if (!row?.path) return row;
  const place = source.columns.findIndex((each) => each.kind === "name");
  row.name = (place >= 0 && row.cells[place]) || row.id;
  session.names.set(row.path, row.name);
  row.selected = isDrawn(row.path);
  row.colour = colouredAs(row.path);
  return row;
}

function showCount() {
  const { source, state, view } = session;
  const all = state.projects.find(({ project }) => project === view.project)?.runs ?? 0;
  byId("count").textContent = isSql(view.find) ? format.count(source.total, "row")
    : view.find.trim() ? `${format.number(String(source.total))} of ${format.count(all, "run")}` : format.count(all, "run");
  byId("warnings").textContent = source.warnings.join(" · ");
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
    if (byId("filter").value !== text || text === session.view.find) return;
    change({ find: text });
    find();
  }, 250);
});

byId("columns-button").addEventListener("click", () => {
  const { known } = session;
  const all = [
    ...known.columns.map(({ name }) => ({ name })),
    ...known.keys.map(({ name, runs }) => ({ name, note: format.count(runs, "run") })),
  ];
  const set = (names) => {
    change({ columns: names });
    find({ keepPlace: true });
  };
  choose("Columns", {
    options: all.filter(({ name }) => name !== "name"),
    chosen: columns(),
    changed: set,
    reset: () => set(null),
  });
});
