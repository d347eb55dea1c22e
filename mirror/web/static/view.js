// The view of the page, stored in the hash of its address, so that a link shows the same view to others.
// Null means that the user has not chosen: the page decides.

const LISTS = ["column", "run", "key"];
const LAST_LIST = "last list of runs";

let current = ""; // the hash that was read or written last

export function read() {
  current = location.hash;
  const hash = new URLSearchParams(location.hash.slice(1));
  const list = (name) => (hash.has(name) ? hash.getAll(name).filter(Boolean) : null);
  const smoothing = Number(hash.get("smooth") ?? 0);
  return {
    details: hash.get("details") ?? "", // the path of the run that is shown
    compare: list("compare") ?? [], // the paths of runs that are compared
    project: hash.get("project") ?? "",
    find: hash.get("find") ?? "",
    order: hash.get("order") ?? "-created_at",
    columns: list("column"),
    runs: hash.get("runs") === "all" ? "all" : list("run"), // "all": every run that was found
    keys: list("key"),
    group: hash.get("group") ?? "",
    x: hash.get("x") || null,
    smoothing: smoothing > 0 && smoothing < 1 ? smoothing : 0,
    log: hash.get("log") === "y",
    chart: hash.get("chart") ?? "", // the key whose chart is enlarged
  };
}

// Store the view, unless another address was gone to whose view is not read yet, as by a link right after a dialog.
export function write(view) {
  if (location.hash !== current) return;
  const hash = new URLSearchParams();
  for (const name of ["project", "find"]) if (view[name]) hash.set(name, view[name]);
  if (view.order !== "-created_at") hash.set("order", view.order);
  if (view.runs === "all") hash.set("runs", "all");
  const lists = [view.columns, view.runs === "all" ? null : view.runs, view.keys];
  lists.forEach((values, at) => {
    for (const value of values?.length === 0 ? [""] : (values ?? [])) hash.append(LISTS[at], value);
  });
  for (const name of ["group", "x", "chart"]) if (view[name]) hash.set(name, view[name]);
  if (view.smoothing) hash.set("smooth", view.smoothing);
  if (view.log) hash.set("log", "y");
  history.replaceState(null, "", `${location.pathname}${hash.size ? `#${readable(hash)}` : ""}`);
  current = location.hash;
  keepList();
}

// The list of runs that the pages of single runs lead back to; it survives a reload of the page.
export function keepList() {
  sessionStorage.setItem(LAST_LIST, location.hash);
}

export const isLastList = () => location.hash === sessionStorage.getItem(LAST_LIST);

export function lastList(project) {
  const kept = sessionStorage.getItem(LAST_LIST) ?? "";
  return new URLSearchParams(kept.slice(1)).get("project") === project ? kept : `#${readable(new URLSearchParams({ project }))}`;
}

export const toRun = (path) => `#${readable(new URLSearchParams({ details: path }))}`;
export const toComparison = (paths) => `#${readable(new URLSearchParams(paths.map((path) => ["compare", path])))}`;
export const toCharts = (project, path) => `#${readable(new URLSearchParams({ project, run: path }))}`;

const readable = (hash) => hash.toString().replaceAll("%2F", "/");
