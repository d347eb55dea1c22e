// The page: which view the address names, and updates when the mirror is published.

import { get, Unreachable } from "./api.js";
import * as comparison from "./compare.js";
import * as details from "./details.js";
import { byId } from "./dom.js";
import { forgetColours, showControls } from "./drawing.js";
import { clearFound, find, focusTable, renewFound } from "./finding.js";
import { showAges, showProjects } from "./projects.js";
import { change, session, showError } from "./session.js";
import * as views from "./view.js";

const POLL = 2000;

let renewed = ""; // the snapshot that everything in view is of

// ---------------------------------------------------------------- views

// Show what the address names: a run, a comparison, or the runs of a project.
function route() {
  const { view, state } = session;
  const former = ["run-page", "compare-page", "project"].find((id) => !byId(id).hidden);
  const wanted = view.details ? "run-page" : view.compare.length > 1 ? "compare-page" : "project";
  for (const id of ["run-page", "compare-page"]) byId(id).hidden = id !== wanted;
  byId("project").hidden = wanted !== "project" || !state.projects.length;
  if (wanted !== "run-page") details.leave();
  if (wanted !== "compare-page") comparison.leave();
  renewed = state.snapshot;
  if (wanted === "project") openList(former);
  else {
    view.project = (view.details || view.compare[0]).split("/").slice(0, 2).join("/");
    showProjects(goTo);
    if (wanted === "run-page") details.show(view.details);
    else comparison.show(view.compare);
  }
}

function openList(former) {
  const { view, state } = session;
  if (!view.project) change({ project: newest() ?? "" });
  const known = views.isLastList() && session.known !== null;
  views.keepList();
  if (!view.project || !state.projects.length) showProjects(goTo);
  else if (former !== "project" && known) {
    // Back from a run: everything is still there.
    document.title = `${view.project} · wandb-mirror`;
    showControls();
    showProjects(goTo);
    renewFound();
    focusTable();
  } else openProject(view.project);
}

// The first project with a running run, else the first project.
function newest() {
  const { projects } = session.state;
  return (projects.find(({ running }) => running) ?? projects[0])?.project;
}

function goTo(project) {
  location.hash = views.lastList(project);
}

async function openProject(project) {
  session.known = null;
  forgetColours();
  clearFound();
  byId("columns-button").disabled = true;
  byId("title").textContent = project;
  document.title = `${project} · wandb-mirror`;
  byId("filter").value = session.view.find;
  showControls();
  showProjects(goTo);
  try {
    const keys = await get("/api/keys", { project });
    if (project !== session.view.project) return;
    session.known = keys;
  } catch (error) {
    if (project !== session.view.project) return;
    if (error instanceof Unreachable) session.again = () => openProject(project);
    else showError(byId("problem"), error);
    return;
  }
  byId("columns-button").disabled = false;
  showControls();
  await find();
}

addEventListener("hashchange", () => {
  session.view = views.read();
  if (byId("enlarged").open && !session.view.chart) byId("enlarged").close();
  if (session.state) route();
});

byId("project-select").addEventListener("change", (event) => goTo(event.target.value));

// A link within the page leads to a part of it, and leaves the view in the address as it is.
for (const link of document.querySelectorAll(".skip a")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const part = byId(link.hash.slice(1));
    if (part.id === "table") focusTable();
    else part.focus();
    part.scrollIntoView({ block: "nearest" });
  });
}

// ---------------------------------------------------------------- updates

async function checkState() {
  const former = session.state;
  try {
    session.state = await get("/api/state");
  } catch (error) {
    if (error.name === "AbortError") return;
    byId("connection").textContent = error.status === 401 ? "This page is locked again: open it with `mirror open`." : error.message;
    return;
  }
  byId("connection").textContent = "";
  const { again, state } = session;
  session.again = null;
  if (former === null || !former.projects.length !== !state.projects.length) route();
  else if (state !== former) showProjects(goTo);
  if (again) await again();
  if (renewed !== state.snapshot) await renew();
}

// The mirror was published again: update what is in view, in place.
async function renew() {
  if (byId("chooser").open) return;
  const { known, view } = session;
  renewed = session.state.snapshot;
  if (!byId("run-page").hidden) return details.show(view.details);
  if (!byId("compare-page").hidden) return comparison.show(view.compare);
  if (!view.project) return undefined;
  // A project that was not mirrored, or had no runs, may have some now.
  if (!known || !known.keys.length) return openProject(view.project);
  return renewFound();
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
