// A table of many rows, of which only those in view are in the document.
//
// It is shown a source: {columns, total, order, boxes, rowAt(index), need(from, to)}. A column is
// {name, title, group, order, number, kind}; a row is {cells, path, selected, colour}, or undefined until it was loaded.

import { element } from "./dom.js";
import * as format from "./format.js";

const ROW = 30;
const BEYOND = 12; // rows kept above and below what is in sight
const CHARACTER = 7.2;
const MOST_TEXT = 200;
const MOST_TITLE = 2000;

export class Table {
  constructor(box, table, { choose, open, order }) {
    this.box = box;
    this.table = table;
    this.handlers = { choose, open, order };
    [this.columnGroup, this.head, this.body] = ["colgroup", "thead tr", "tbody"].map((name) => table.querySelector(name));
    this.rows = new Map();
    this.above = this.#gap();
    this.below = this.#gap();
    this.body.append(this.above, this.below);
    box.addEventListener("scroll", () => requestAnimationFrame(() => this.refresh()), { passive: true });
    new ResizeObserver(() => this.refresh()).observe(box);
  }

  // Another query, or other columns: start again, at the top unless the rows are the same ones.
  show(source, { keepPlace = false } = {}) {
    const active = this.body.contains(document.activeElement) ? document.activeElement : null;
    const focused = active && [...this.rows].find(([, row]) => row.contains(active))?.[0];
    this.source = source;
    this.table.classList.toggle("without-boxes", !source.boxes);
    this.table.setAttribute("aria-rowcount", source.total + 1);
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
    this.#head();
    if (!keepPlace) this.box.scrollTop = 0;
    this.refresh();
    if (keepPlace && active) this.rows.get(focused)?.querySelector(active.tagName)?.focus({ preventScroll: true });
  }

  // The same columns with new contents: every row in view is updated in place.
  refresh() {
    const { source } = this;
    if (!source) return;
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - BEYOND);
    const last = Math.min(source.total, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + BEYOND);
    source.need(first, last);
    for (const [index, row] of this.rows) {
      if (index < first || index >= last) {
        row.remove();
        this.rows.delete(index);
      }
    }
    this.above.firstChild.style.height = `${first * ROW}px`;
    this.below.firstChild.style.height = `${Math.max(0, source.total - last) * ROW}px`;
    let before = this.above;
    for (let index = first; index < last; index += 1) {
      let row = this.rows.get(index);
      if (!row) {
        row = this.#row(index);
        this.rows.set(index, row);
        before.after(row);
      }
      this.#fill(row, source.rowAt(index));
      before = row;
    }
    this.table.setAttribute("aria-rowcount", source.total + 1);
  }

  #gap() {
    const row = element("tr", { class: "gap", "aria-hidden": "true" }, element("td"));
    row.firstChild.colSpan = 1000;
    return row;
  }

  #head() {
    const { columns, boxes, order } = this.source;
    const heads = boxes ? [element("th", { scope: "col" }, element("span", { class: "hidden" }, "Draw"))] : [];
    const widths = boxes ? [40] : [];
    columns.forEach((column, place) => {
      const direction = order?.slice(1) === column.order && column.order ? order[0] : "";
      const mark = { "+": " ↑", "-": " ↓" }[direction] ?? "";
      const label = [column.group ? element("small", {}, column.group) : null, `${column.title}${mark}`];
      const sortable = column.order && this.handlers.order;
      heads.push(
        element(
          "th",
          {
            scope: "col",
            class: column.number ? "number" : null,
            title: column.name,
            "aria-sort": direction ? { "+": "ascending", "-": "descending" }[direction] : null,
          },
          sortable
            ? element("button", { type: "button", onclick: () => this.handlers.order(column) }, ...label)
            : element("span", { class: "plain" }, element("span", {}, ...label)),
        ),
      );
      widths.push(this.#width(column, place));
    });
    // The last column has no width of its own: it gets the remaining width of the box.
    this.head.replaceChildren(...heads, element("td", { class: "rest" }));
    this.columnGroup.replaceChildren(
      ...widths.map((width) => {
        const made = element("col");
        made.style.width = `${width}px`;
        return made;
      }),
      element("col"),
    );
  }

  // From the contents of the first rows, so that columns keep their width while scrolling.
  #width(column, place) {
    let longest = column.title.length + 2;
    for (let index = 0; index < Math.min(60, this.source.total); index += 1) {
      const text = this.source.rowAt(index)?.cells[place];
      if (text) longest = Math.max(longest, written(text, column).length);
    }
    const most = column.kind === "name" ? Math.min(260, this.box.clientWidth * 0.42) : 260;
    return Math.round(Math.min(Math.max(longest * CHARACTER + 24, 64), most));
  }

  #row(index) {
    const { columns, boxes } = this.source;
    const row = element("tr", { "aria-rowindex": index + 2 });
    if (boxes) {
      const box = element("input", { type: "checkbox" });
      box.addEventListener("change", () => this.handlers.choose(this.source.rowAt(index), box.checked));
      row.append(element("td", {}, box));
    }
    for (const column of columns) {
      const cell = element("td", { class: column.number ? "number" : column.kind === "time" ? "time" : null });
      if (column.kind === "name" && boxes) {
        const open = () => this.handlers.open(this.source.rowAt(index));
        cell.append(element("button", { type: "button", class: "open", onclick: open }));
      } else if (column.kind === "state") {
        cell.append(element("span", { class: "state" }));
      }
      row.append(cell);
    }
    row.append(element("td", { class: "rest" }));
    return row;
  }

  #fill(row, content) {
    const { columns, boxes } = this.source;
    const shift = boxes ? 1 : 0;
    if (boxes) {
      const box = row.firstChild.firstChild;
      const name = content?.name ?? "";
      box.disabled = !content?.path;
      box.checked = Boolean(content?.selected);
      box.style.accentColor = content?.colour ?? "";
      if (box.getAttribute("aria-label") !== `Draw ${name}`) box.setAttribute("aria-label", `Draw ${name}`);
      row.setAttribute("aria-selected", Boolean(content?.selected));
    }
    columns.forEach((column, place) => {
      const cell = row.children[place + shift];
      const text = content?.cells[place] ?? "";
      const target = cell.firstElementChild ?? cell;
      const shown = text === "" ? "" : written(text, column);
      if (target.textContent !== shown) target.textContent = shown;
      if (column.kind === "state") target.className = `state ${text}`;
      const full = text.slice(0, MOST_TITLE);
      if (cell.title !== full) cell.title = full;
    });
  }
}

function written(text, column) {
  if (column.kind === "time") return format.instant(text);
  if (column.kind === "duration") return format.duration(Number(text));
  return column.number ? format.number(text) : text.slice(0, MOST_TEXT);
}
