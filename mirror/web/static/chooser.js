// A dialog to choose names from a long list, with those already chosen on top. A choice takes effect at once.

import { byId, element } from "./dom.js";
import { roving } from "./roving.js";

const SHOWN = 300;

const renewStops = roving(byId("chooser-list"), "input");

export function choose(title, { options, chosen, changed, reset }) {
  const dialog = byId("chooser");
  const search = byId("chooser-search");
  const picked = new Set(chosen);
  const sorted = [...options.filter(({ name }) => picked.has(name)), ...options.filter(({ name }) => !picked.has(name))];
  byId("chooser-title").textContent = title;
  search.value = "";

  const list = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fitting = sorted.filter(({ name }) => words.every((word) => name.toLowerCase().includes(word)));
    byId("chooser-list").replaceChildren(
      ...fitting.slice(0, SHOWN).map(({ name, note }) => {
        const box = element("input", { type: "checkbox", value: name });
        box.checked = picked.has(name);
        box.addEventListener("change", () => {
          if (box.checked) picked.add(name);
          else picked.delete(name);
          changed([...picked]);
        });
        return element("label", {}, box, element("span", {}, name), element("span", { class: "quiet" }, note ?? ""));
      }),
    );
    renewStops();
    byId("chooser-more").textContent =
      fitting.length > SHOWN ? `and ${fitting.length - SHOWN} more; search for them` : fitting.length ? "" : "none";
  };
  search.oninput = list;
  search.onkeydown = (event) => {
    if (event.key === "Enter") event.preventDefault();
  };
  byId("chooser-reset").onclick = () => {
    dialog.close();
    reset();
  };
  list();
  dialog.showModal();
  search.focus();
}
