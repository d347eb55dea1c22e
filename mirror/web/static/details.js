// The page of one run: its fields, config, summary, metadata, files, console and system metrics.

import { get, Unreachable } from "./api.js";
import { Charts } from "./charts.js";
import { look } from "./colours.js";
import { byId, element, showText } from "./dom.js";
import { enlarge } from "./enlarged.js";
import * as format from "./format.js";
import { session, tell } from "./session.js";
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
  files: "No list of files is mirrored. `files = true` in section [sync] of config.toml mirrors the lists, without the content.",
  console: "No console is mirrored. `console = true` in section [sync] of config.toml mirrors it, if the run wrote any.",
  system: "No system metrics are mirrored. `system_metrics = true` in section [sync] of config.toml mirrors them.",
};

const system = new Charts(byId("run-system"), enlarge);
let shown = ""; // the path of the run on the page
let asking = null; // aborts what the page waits for
let run = null;
let earlier = []; // console lines that were asked for, before the last ones

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
    run = await get("/api/run", { run: path }, signal);
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
    showFiles(files);
    showConsole(console_);
    await showSystem(curves);
  } catch (error) {
    if (error instanceof Unreachable) session.again = () => show(path);
    else if (error.name !== "AbortError") byId("run-parts").hidden = true;
    tell(byId("run-problem"), error);
  }
}

export function leave() {
  asking?.abort();
  shown = "";
}

function clear(path) {
  shown = path;
  run = null;
  earlier = [];
  const [project, id] = [path.split("/").slice(0, 2).join("/"), path.split("/")[2] ?? path];
  byId("run-title").textContent = session.names.get(path) ?? id;
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

function showFiles({ total, files }) {
  byId("run-files-count").textContent = format.count(total, "file").split(" ")[0];
  showText(byId("run-files-hint"), !total ? MISSING.files : files.length < total ? `The first ${files.length} of ${format.count(total, "file")}.` : "");
  byId("run-files").hidden = !total;
  byId("run-files").querySelector("tbody").replaceChildren(
    ...files.map(({ name, size, updated_at: updated }) =>
      element("tr", {}, element("td", {}, name), element("td", { class: "number" }, format.bytes(size)), element("td", { class: "time" }, updated ? format.instant(updated) : "")),
    ),
  );
}

function showConsole({ total, earlier: more, lines }) {
  // Lines that were asked for stay above the newest ones, as far as they join.
  const first = lines[0]?.line ?? 0;
  earlier = earlier.filter(({ line }) => line < first);
  const joined = earlier.length && earlier.at(-1).line + lines.length >= first;
  const all = joined || !earlier.length ? [...earlier, ...lines] : lines;
  const box = byId("run-console");
  const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
  byId("run-console-count").textContent = format.count(total, "line").split(" ")[0];
  showText(byId("run-console-hint"), total ? "" : MISSING.console);
  box.hidden = !total;
  box.replaceChildren(...all.map(({ level, text }) => element("span", { class: level === "error" ? "bad" : null }, `${text.replaceAll(/\x1b\[[0-9;]*[A-Za-z]/g, "")}\n`)));
  byId("run-earlier").hidden = !(all[0] && (all === lines ? more : all[0].line > 0));
  byId("run-earlier").onclick = () => load(all, lines, total);
  if (atEnd) box.scrollTop = box.scrollHeight;
}

async function load(all, lines, total) {
  try {
    const answer = await get("/api/run/console", { run: shown, before: all[0].line }, asking.signal);
    earlier = [...answer.lines, ...all.slice(0, all.length - lines.length)];
    showConsole({ total, earlier: answer.earlier, lines });
    byId("run-earlier").hidden = !answer.earlier;
    byId("run-console").scrollTop = 0;
  } catch (error) {
    tell(byId("run-problem"), error);
  }
}

function showSystem(curves) {
  byId("run-system-count").textContent = String(curves.length);
  showText(byId("run-system-hint"), curves.length ? "" : MISSING.system);
  const line = { id: shown, name: run.name || run.run_id, ...look(0) };
  const drawn = curves.map((curve) => ({ ...curve, line: shown }));
  return system.draw(curves.map(({ key }) => key), [line], drawn, { x: curves[0]?.x_key ?? "_runtime", smoothing: 0, log: false });
}

const pairs = (rows) => rows.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]);

byId("run-search").addEventListener("input", search);
