// The view of the page, stored in the hash of its address, so that a link shows the same view to others.
// Null means that the user has not chosen: the page decides.

export function read() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const list = (name) => (hash.has(name) ? hash.getAll(name).filter(Boolean) : null);
  const smoothing = Number(hash.get("smooth") ?? 0);
  return {
    project: hash.get("project") ?? "",
    find: hash.get("find") ?? "",
    order: hash.get("order") ?? "-created_at",
    columns: list("column"),
    runs: list("run"),
    keys: list("key"),
    x: ["_step", "_runtime", "_timestamp"].includes(hash.get("x")) ? hash.get("x") : null,
    smoothing: smoothing > 0 && smoothing < 1 ? smoothing : 0,
    log: hash.get("log") === "y",
  };
}

export function write(view) {
  const hash = new URLSearchParams();
  if (view.project) hash.set("project", view.project);
  if (view.find) hash.set("find", view.find);
  if (view.order !== "-created_at") hash.set("order", view.order);
  for (const [name, values] of [["column", view.columns], ["run", view.runs], ["key", view.keys]]) {
    for (const value of values?.length === 0 ? [""] : (values ?? [])) hash.append(name, value);
  }
  if (view.x) hash.set("x", view.x);
  if (view.smoothing) hash.set("smooth", view.smoothing);
  if (view.log) hash.set("log", "y");
  const readable = hash.toString().replaceAll("%2F", "/");
  history.replaceState(null, "", `${location.pathname}${readable ? `#${readable}` : ""}`);
}
