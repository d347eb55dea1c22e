// Runs side by side: first where they differ, then what they have in common.

import { get, Unreachable } from "./api.js";
import { DOCUMENTS, FIELDS, fieldText } from "./details.js";
import { byId, element, showText } from "./dom.js";
import * as format from "./format.js";
import { session, showError } from "./session.js";
import { lastList, toRun } from "./view.js";

const MOST = 6;
const OWN = new Set(["run_id", "created_at", "heartbeat_at", "synced_at"]); // differ always, and say nothing

let asking = null;

export async function show(paths) {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  byId("compare-back").href = lastList(paths[0].split("/").slice(0, 2).join("/"));
  document.title = "Compare runs · wandb-mirror";
  try {
    if (paths.length > MOST) throw new Error(`at most ${MOST} runs are compared at a time, not ${paths.length}`);
    const runs = await Promise.all(paths.map((path) => get("/api/run", { run: path }, signal)));
    signal.throwIfAborted();
    showText(byId("compare-problem"), "");
    byId("compare-parts").hidden = false;
    fill(paths, runs);
  } catch (error) {
    if (error instanceof Unreachable) session.again = () => show(paths);
    else if (error.name !== "AbortError") byId("compare-parts").hidden = true;
    showError(byId("compare-problem"), error);
  }
}

export const leave = () => asking?.abort();

function fill(paths, runs) {
  const heads = runs.map((run, at) => element("th", { scope: "col" }, element("a", { href: toRun(paths[at]) }, run.name || run.run_id), element("small", {}, run.run_id)));
  byId("compare-head").replaceChildren(element("td", {}), ...heads);
  const sections = [
    ["run", FIELDS.filter(([field]) => !OWN.has(field)).map(([field, title]) => [title, runs.map((run) => fieldText(run, field) || null)])],
    ...DOCUMENTS.map((name) => [name, rowsOf(runs.map((run) => run[name]))]),
  ];
  const differs = ([, values]) => values.some((value) => value !== values[0]);
  const differing = sections.map(([name, rows]) => [name, rows.filter(differs)]);
  const same = sections.map(([name, rows]) => [name, rows.filter((row) => !differs(row) && row[1][0] !== null)]);
  const number = (all) => all.reduce((sum, [, rows]) => sum + rows.length, 0);
  byId("compare-count").textContent = number(differing)
    ? `${format.count(number(differing), "value")} ${number(differing) === 1 ? "differs" : "differ"}, ${number(same)} are the same` : "The runs are the same in everything that is compared.";
  byId("compare-differing").replaceChildren(...differing.flatMap((section) => block(section, paths.length)));
  byId("compare-same").replaceChildren(...same.flatMap((section) => block(section, paths.length)));
  byId("compare-same-button").hidden = !number(same);
  byId("compare-same-button").textContent = `${byId("compare-same").hidden ? "Show" : "Hide"} ${format.count(number(same), "value")} that ${number(same) === 1 ? "is" : "are"} the same`;
}

// The values of each key in all runs; null where a run does not have the key.
function rowsOf(documents) {
  const maps = documents.map((rows) => new Map(rows.map(([key, value]) => [key, value ?? "null"])));
  const keys = [...new Set(maps.flatMap((map) => [...map.keys()]))].sort();
  return keys.map((key) => [key, maps.map((map) => map.get(key) ?? null)]);
}

function block([name, rows], runs) {
  if (!rows.length) return [];
  const title = element("tr", { class: "section" }, element("th", { colspan: runs + 1, scope: "rowgroup" }, name));
  return [title, ...rows.map(([key, values]) => element("tr", {}, element("th", { scope: "row" }, key), ...values.map(cell)))];
}

function cell(value) {
  if (value === null) return element("td", { class: "quiet" }, "–");
  const short = /^-?[\d.]+(e-?\d+)?$/.test(value) ? format.number(value) : value;
  return element("td", { title: short === value ? null : value }, short);
}

byId("compare-same-button").addEventListener("click", (event) => {
  const part = byId("compare-same");
  part.hidden = !part.hidden;
  event.target.textContent = event.target.textContent.replace(/^\w+/, part.hidden ? "Show" : "Hide");
});
