// A table of many rows, of which only those in view are in the document.
//
// It is shown a source: {columns, total, order, boxes, rowAt(index), need(from, to)}. A column is
// {name, title, group, order, number, kind}; a row is {cells, path, selected, colour}, or undefined until it was loaded.
//
// The table is one Tab stop: the arrow keys, Home, End, Page Up and Page Down move within it, Space ticks the row.

import { element } from "./dom.js";
import * as format from "./format.js";

const ROW = 30;
const BEYOND = 12; // rows kept above and below what is in sight
const CHARACTER = 7.2;
const MOST_TEXT = 200;
const MOST_TITLE = 2000;

export class Table {
  constructor(box, table, handlers) {
    this.box = box;
    this.table = table;
    this.handlers = handlers;
    this.at = { row: 0, column: 1 }; // the cell with the Tab stop; row -1 is the header
    [this.columnGroup, this.head, this.body] = ["colgroup", "thead tr", "tbody"].map((name) => table.querySelector(name));
    this.rows = new Map();
    this.above = this.#gap();
    this.below = this.#gap();
    this.body.append(this.above, this.below);
    box.addEventListener("scroll", () => requestAnimationFrame(() => this.refresh()), { passive: true });
    new ResizeObserver(() => this.refresh()).observe(box);
    box.addEventListener("keydown", (event) => this.#key(event));
    table.addEventListener("focusin", (event) => {
      const cell = event.target.closest("th, td");
      if (!cell) return;
      const row = [...this.rows].find(([, each]) => each === cell.parentElement)?.[0] ?? -1;
      this.#stop({ row, column: [...cell.parentElement.children].indexOf(cell) });
    });
  }

  // The first and the last row of those that are kept in the document.
  range() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - BEYOND);
    return [first, Math.max(first + 1, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + BEYOND)];
  }

  focus() {
    this.#go(this.at);
  }

  // Another query, or other columns: start again, at the top unless the rows are the same ones.
  show(source, { keepPlace = false } = {}) {
    const focused = this.table.contains(document.activeElement);
    this.source = source;
    this.table.classList.toggle("without-boxes", !source.boxes);
    this.table.setAttribute("aria-rowcount", source.total + 1);
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
    this.#head();
    if (!keepPlace) this.box.scrollTop = 0;
    if (!keepPlace && !(focused && this.at.row < 0)) this.at.row = 0;
    this.refresh();
    if (focused && source.total) this.#go(this.at);
  }

  // The same columns with new contents: every row in view is updated in place.
  refresh() {
    const { source } = this;
    if (!source) return;
    const [first, end] = this.range();
    const last = Math.min(source.total, end);
    source.need(first, last);
    for (const [index, row] of this.rows) {
      if (index < first || index >= last) {
        // Scrolled away with the focus: the box takes it, and the arrow keys lead back.
        if (row.contains(document.activeElement)) this.box.focus({ preventScroll: true });
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
    if (this.all) {
      const row = (index) => source.rowAt(index);
      const chosen = [...this.rows.keys()].filter((index) => row(index)?.selected).length;
      this.all.checked = chosen > 0 && chosen === [...this.rows.keys()].filter((index) => row(index)?.path).length;
      this.all.indeterminate = chosen > 0 && !this.all.checked;
    }
    this.#stop(this.at);
  }

  // The control of a cell, else the cell itself.
  #target({ row, column }) {
    const cells = (row < 0 ? this.head : this.rows.get(row))?.children;
    const cell = cells?.[Math.min(column, cells.length - 2)]; // the last one only fills the box
    return cell && (cell.querySelector("input, button, a") ?? cell);
  }

  #stop(at) {
    const former = this.table.querySelectorAll('[tabindex="0"]');
    this.at = { row: Math.min(at.row, this.source.total - 1), column: at.column };
    const target = this.#target(this.at);
    for (const each of former) if (each !== target) each.tabIndex = -1;
    if (target && target.tabIndex !== 0) target.tabIndex = 0;
    // While the cell is not in the document, the box is the Tab stop.
    this.box.tabIndex = target ? -1 : 0;
  }

  #go(at) {
    const { total } = this.source;
    const row = Math.max(-1, Math.min(total - 1, at.row));
    const head = this.head.getBoundingClientRect().height;
    if (row >= 0) {
      const top = row * ROW;
      if (top < this.box.scrollTop) this.box.scrollTop = top;
      else if (top + ROW + head > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + ROW + head - this.box.clientHeight;
    }
    this.at = { row, column: Math.max(0, Math.min(at.column, this.head.children.length - 2)) };
    this.refresh();
    const target = this.#target(this.at);
    if (!target) return;
    if (target.tabIndex !== 0) target.tabIndex = 0;
    target.focus({ preventScroll: true });
    (target.closest("th, td") ?? target).scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #key(event) {
    const { row, column } = this.at;
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW) - 2);
    const [top, far] = [{ row: 0, column }, this.head.children.length];
    const to = {
      ArrowDown: { row: row + 1, column }, ArrowUp: { row: row - 1, column },
      ArrowRight: { row, column: column + 1 }, ArrowLeft: { row, column: column - 1 },
      PageDown: { row: row + page, column }, PageUp: { row: Math.max(0, row - page), column },
      Home: event.ctrlKey ? top : { row, column: 0 },
      End: event.ctrlKey ? { row: this.source.total - 1, column } : { row, column: far },
    }[event.key];
    if (to && !event.altKey && !event.metaKey) {
      event.preventDefault();
      this.#go(to);
    } else if (event.key === " " && row >= 0 && this.source.boxes && event.target.type !== "checkbox") {
      event.preventDefault();
      const content = this.source.rowAt(row);
      if (content?.path) this.handlers.choose(content, !content.selected);
    }
  }

  #gap() {
    const row = element("tr", { class: "gap", "aria-hidden": "true" }, element("td"));
    row.firstChild.colSpan = 1000;
    return row;
  }

  #head() {
    const { columns, boxes, order } = this.source;
    this.all = boxes ? element("input", { type: "checkbox", "aria-label": "Draw all found runs", title: "Draw all found runs", tabindex: -1 }) : null;
    this.all?.addEventListener("change", () => this.handlers.chooseAll(this.all.checked));
    const heads = boxes ? [element("th", { scope: "col" }, this.all)] : [];
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
            tabindex: sortable ? null : -1,
            "aria-sort": direction ? { "+": "ascending", "-": "descending" }[direction] : null,
          },
          sortable
            ? element("button", { type: "button", tabindex: -1, onclick: () => this.handlers.order(column) }, ...label)
            : element("span", { class: "plain" }, element("span", {}, ...label)),
        ),
      );
      widths.push(this.#width(column, place));
    });
    // What the arrow keys lead to must not lie behind the columns that stay in place.
    this.box.style.scrollPaddingLeft = boxes ? `${widths[0] + (widths[1] ?? 0)}px` : "0";
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
      const box = element("input", { type: "checkbox", tabindex: -1 });
      box.addEventListener("change", () => this.handlers.choose(this.source.rowAt(index), box.checked));
      row.append(element("td", {}, box));
    }
    for (const column of columns) {
      const cell = element("td", { class: column.number ? "number" : column.kind === "time" ? "time" : null });
      if (column.kind === "name" && boxes) cell.append(element("a", { class: "open", tabindex: -1 }));
      else cell.tabIndex = -1;
      if (column.kind === "state") {
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
      if (target.tagName === "A" && content?.path) target.href = this.handlers.link(content);
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
