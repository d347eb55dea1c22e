// The list of projects, and how fresh each is.

import { byId, element, showText } from "./dom.js";
import * as format from "./format.js";
import { roving } from "./roving.js";
import { session } from "./session.js";

const renewStops = roving(byId("projects"), "button");

export function showProjects(open) {
  const { state, view } = session;
  const { projects } = state;
  byId("server").textContent = state.daemon.base_url ?? "";
  const at = [...byId("projects").children].findIndex((item) => item.contains(document.activeElement));
  byId("projects").replaceChildren(...projects.map((project) => entry(project, open)));
  if (at >= 0) byId("projects").children[at]?.querySelector("button").focus();
  renewStops();
  byId("project-select").replaceChildren(...projects.map(({ project }) => element("option", {}, project)));
  byId("project-select").value = view.project;
  showText(byId("empty"), projects.length ? "" : "Nothing is mirrored yet. The first pass of the daemon pulls the projects of config.toml; this page shows them as they arrive.");
  const here = projects.find(({ project }) => project === view.project);
  const failed = here ? Math.max(here.set_aside, state.daemon.failed_runs?.[here.project] ?? 0) : 0;
  showText(byId("troubles"), [
    ...(state.daemon.errors ?? []),
    ...(here?.last_error ? [here.last_error] : []),
    ...(failed ? [`${format.count(failed, "run")} could not be mirrored whole; tried again later`] : []),
  ].join(" · "));
  showAges();
}

function entry({ project, runs, running, last_success_at: success, last_error: problem }, open) {
  const [entity, name] = project.split("/");
  const facts = [format.count(runs, "run"), ...(running ? [`${running} running`] : [])].join(" · ");
  return element(
    "li",
    {},
    element(
      "button",
      { type: "button", "aria-current": project === session.view.project ? "true" : null, onclick: () => open(project) },
      element("span", { class: "name" }, element("span", {}, `${entity}/`), name),
      element("small", {}, facts),
      problem
        ? element("small", { class: "bad", title: problem }, "last pass failed")
        : element("small", { "data-since": success ?? "" }),
    ),
  );
}

export function showAges() {
  for (const line of document.querySelectorAll("[data-since]")) {
    const text = line.dataset.since ? `mirrored ${format.age(line.dataset.since)}` : "not mirrored yet";
    if (line.textContent !== text) line.textContent = text;
  }
  const here = session.state?.projects.find(({ project }) => project === session.view.project);
  const text = here
    ? [
      format.count(here.runs, "run"),
      ...(here.running ? [`${here.running} running`] : []),
      format.count(here.history_rows, "history row"),
      here.last_success_at ? `mirrored ${format.age(here.last_success_at)}` : "not mirrored yet",
    ].join(" · ")
    : "";
  if (byId("freshness").textContent !== text) byId("freshness").textContent = text;
}
