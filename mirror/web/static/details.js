// The page of one run: its fields, config, summary, metadata, files, console and system metrics.

import { get, Unreachable } from "./api.js";
import { Charts } from "./charts.js";
import { look } from "./colours.js";
import { byId, element, showText } from "./dom.js";
import { enlarge } from "./enlarged.js";
import * as format from "./format.js";
import { session, showError } from "./session.js";
import { lastList, toCharts } from "./view.js";

export const FIELDS = [
  ["run_id", "id"], ["state", "state"], ["created_at", "created"], ["heartbeat_at", "last heartbeat"],
  ["duration_s", "duration"], ["history_rows", "history rows"], ["username", "user"], ["group_name", "group"],
  ["job_type", "job type"], ["sweep", "sweep"], ["tags", "tags"], ["notes", "notes"], ["git_commit", "commit"],
  ["host", "host"], ["deleted_at", "deleted on the server"], ["synced_at", "mirrored"],
];
export const DOCUMENTS = ["config", "summary", "metadata"];
const MISSING = {
  metadata: "No metadata is mirrored.",
  files: "No list of files is mirrored. `files = \"list\"` in section [sync] of config.toml mirrors the lists, `files = \"content\"` the content, too.",
  console: "No console is mirrored. `console = true` in section [sync] of config.toml mirrors it, if the run wrote any.",
  system: "No system metrics are mirrored. `system_metrics = true` in section [sync] of config.toml mirrors them.",
};

const COLOUR_CODES = /\x1b\[[0-9;]*[A-Za-z]/g;

const system = new Charts(byId("run-system"), enlarge);
let shown = ""; // the path of the run on the page
let asking = null; // aborts what the page waits for
let run = null;
const printed = new Map(); // lines of the console by their number

export const fieldText = (run_, field) => {
  const value = run_[field];
  if (value === null || value === undefined || value === "") return "";
  return field === "duration_s" ? format.duration(value)
    : field.endsWith("_at") ? format.instant(value)
      : field === "history_rows" ? format.number(String(value)) : String(value);
};

// Show a run, or its newest values if it is shown already.
export async function show(path) {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  if (path !== shown) clear(path);
  try {
    const answer = await get("/api/run", { run: path }, signal);
    signal.throwIfAborted();
    run = answer;
    byId("run-title").textContent = run.name || run.run_id;
    document.title = `${run.name || run.run_id} · wandb-mirror`;
    showText(byId("run-problem"), "");
    byId("run-parts").hidden = false;
    showFields();
    const [files, console_, curves] = await Promise.all([
      get("/api/run/files", { run: path }, signal),
      get("/api/run/console", { run: path }, signal),
      get("/api/run/system", { run: path }, signal),
    ]);
    signal.throwIfAborted();
    showFiles(files);
    showConsole(console_);
    await showSystem(curves);
  } catch (error) {
    if (error instanceof Unreachable) session.again = () => show(path);
    else if (error.name !== "AbortError") byId("run-parts").hidden = true;
    showError(byId("run-problem"), error);
  }
}

export function leave() {
  asking?.abort();
  shown = "";
}

function clear(path) {
  shown = path;
  run = null;
  printed.clear();
  const [entity, name, id] = path.split("/");
  const project = `${entity}/${name}`;
  byId("run-title").textContent = session.names.get(path) ?? id ?? path;
  byId("run-path").textContent = path;
  byId("run-back").href = lastList(project);
  byId("run-back").textContent = `‹ ${project}`;
  byId("run-draw").href = toCharts(project, path);
  byId("run-link").hidden = true;
  byId("run-parts").hidden = true;
  byId("run-search").value = "";
  showText(byId("run-problem"), "");
  byId("run-title").focus({ preventScroll: true });
  scrollTo(0, 0);
}

function showFields() {
  const link = byId("run-link");
  link.hidden = !/^https?:\/\//.test(run.url ?? "");
  if (!link.hidden) link.href = run.url;
  const fields = FIELDS.map(([field, title]) => [title, fieldText(run, field)]).filter(([, text]) => text);
  byId("run-fields").replaceChildren(...pairs(fields));
  search();
}

function search() {
  const words = byId("run-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const name of DOCUMENTS) {
    const all = run?.[name] ?? [];
    const fitting = all.filter(([key, value]) => words.every((word) => `${key} ${value}`.toLowerCase().includes(word)));
    byId(`run-${name}-count`).textContent = words.length ? `${fitting.length} of ${all.length}` : String(all.length);
    byId(`run-${name}`).replaceChildren(...pairs(fitting.map(([key, value]) => [key, value ?? "null"])));
    showText(byId(`run-${name}-hint`), all.length ? "" : (MISSING[name] ?? `The run has no ${name}.`));
  }
}

function showFiles({ total, files }, above = []) {
  const all = [...above, ...files];
  byId("run-files-count").textContent = format.number(String(total));
  showText(byId("run-files-hint"), total ? "" : MISSING.files);
  byId("run-files").hidden = !total;
  byId("run-files").querySelector("tbody").replaceChildren(
    ...all.map(({ name, size, updated_at: updated }) =>
      element("tr", {}, element("td", {}, name), element("td", { class: "number" }, format.bytes(size)), element("td", { class: "time" }, updated ? format.instant(updated) : "")),
    ),
  );
  byId("run-more-files").hidden = all.length >= total;
  byId("run-more-files").onclick = () =>
    get("/api/run/files", { run: shown, start: all.length }, asking.signal)
      .then((more) => showFiles(more, all), (error) => showError(byId("run-problem"), error));
}

// Earlier lines that were asked for stay above the newest ones, as far as they join.
function showConsole({ total, earlier, lines }, older = false) {
  const first = lines[0]?.line ?? 0;
  if (!older && !printed.has(first) && !printed.has(first - 1)) printed.clear();
  if (older || ![...printed.keys()].some((line) => line < first)) byId("run-earlier").hidden = !earlier;
  for (const line of lines) printed.set(line.line, line);
  const all = [...printed.values()].sort((one, other) => one.line - other.line);
  const box = byId("run-console");
  const { scrollTop, scrollHeight, clientHeight } = box;
  byId("run-console-count").textContent = format.number(String(total));
  showText(byId("run-console-hint"), total ? "" : MISSING.console);
  box.hidden = !total;
  box.replaceChildren(...all.map(({ level, text }) => element("span", { class: level === "error" ? "bad" : null }, `${text.replaceAll(COLOUR_CODES, "")}\n`)));
  if (older) box.scrollTop = scrollTop + box.scrollHeight - scrollHeight;
  else if (scrollTop + clientHeight >= scrollHeight - 4) box.scrollTop = box.scrollHeight;
}

byId("run-earlier").addEventListener("click", async () => {
  try {
    const before = Math.min(...printed.keys());
    showConsole(await get("/api/run/console", { run: shown, before }, asking.signal), true);
  } catch (error) {
    showError(byId("run-problem"), error);
  }
});

function showSystem(curves) {
  byId("run-system-count").textContent = String(curves.length);
  showText(byId("run-system-hint"), curves.length ? "" : MISSING.system);
  const line = { id: shown, name: run.name || run.run_id, ...look(0) };
  const drawn = curves.map((curve) => ({ ...curve, line: shown }));
  return system.draw(curves.map(({ key }) => key), [line], drawn, { x: curves[0]?.x_key ?? "_runtime", smoothing: 0, log: false });
}

const pairs = (rows) => rows.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]);

byId("run-search").addEventListener("input", search);
