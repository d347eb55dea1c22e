// Everything about one run, in a dialog.

import { get } from "./api.js";
import { byId, element } from "./dom.js";
import * as format from "./format.js";

const FIELDS = [
  ["run_id", "id"], ["state", "state"], ["created_at", "created"], ["heartbeat_at", "last heartbeat"],
  ["duration_s", "duration"], ["history_rows", "history rows"], ["username", "user"], ["group_name", "group"],
  ["job_type", "job type"], ["sweep", "sweep"], ["tags", "tags"], ["notes", "notes"], ["git_commit", "commit"],
  ["host", "host"], ["deleted_at", "deleted on the server"], ["synced_at", "mirrored"],
];

export async function show(path) {
  const body = byId("details-body");
  const run = await get("/api/run", { run: path });
  byId("details-title").textContent = run.name || run.run_id;
  const link = byId("details-link");
  link.hidden = !/^https?:\/\//.test(run.url ?? "");
  if (!link.hidden) link.href = run.url;
  const shown = FIELDS.filter(([field]) => run[field] !== null && run[field] !== "").map(([field, title]) => [
    title,
    field === "duration_s" ? format.duration(run[field])
      : field.endsWith("_at") ? format.instant(run[field])
        : field === "history_rows" ? format.number(String(run[field])) : String(run[field]),
  ]);
  body.replaceChildren(list(shown), ...["config", "summary"].flatMap((document) => [
    element("h3", {}, `${document} (${run[document].length})`),
    list(run[document].map(([key, value]) => [key, value ?? "null"])),
  ]));
  byId("details").showModal();
  body.scrollTop = 0;
}

function list(pairs) {
  return element("dl", {}, ...pairs.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)]));
}
