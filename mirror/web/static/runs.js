// The matching runs, page by page: by a filter over one project, or by SQL.

import { get, post } from "./api.js";

const PAGE = 100;
const QUICK = 1000; // milliseconds

export const isSql = (text) => /^\s*(select|with|from|values|describe|show|summarize|explain|pivot)\b/i.test(text);

// No runs: before there is an answer, and where the question was wrong.
export class Nothing {
  columns = [];
  boxes = false;
  order = "";
  total = 0;
  warnings = [];
  need() {}
  rowAt() {}
  close() {}
}

// Runs of a project in order; `columns` are {name, ...} as in the table. `loaded` is called after each page that was needed,
// `failed` with the error of one.
export class Found {
  constructor(project, find, order, columns, loaded, failed) {
    Object.assign(this, { project, columns, order, loaded, failed, boxes: true, total: 0, warnings: [], pages: new Map() });
    this.query = { project, filter: find, order, column: columns.map((column) => column.name) };
    this.asked = new Set();
    this.stop = new AbortController();
  }

  // The first page; throws an error that says what is wrong with the filter.
  async begin() {
    await this.#load(0);
    return this;
  }

  need(from, to) {
    for (let page = Math.floor(from / PAGE); page * PAGE < to; page += 1) {
      if (!this.pages.has(page) && !this.asked.has(page)) this.#load(page).then(this.loaded, this.failed);
    }
  }

  // The mirror was published again: reload the pages in view now, the others when they are needed.
  async renew(from, to) {
    const [first, last] = [Math.floor(from / PAGE), Math.floor(Math.max(from, to - 1) / PAGE)];
    for (const page of this.pages.keys()) if (page < first || page > last) this.pages.delete(page);
    for (let page = first; page <= last; page += 1) await this.#load(page);
  }

  rowAt(index) {
    return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  close() {
    this.stop.abort();
  }

  async #load(page) {
    this.asked.add(page);
    try {
      const query = { ...this.query, offset: page * PAGE, limit: PAGE };
      const answer = await get("/api/runs", query, this.stop.signal);
      this.total = answer.total;
      this.warnings = answer.warnings;
      this.pages.set(page, answer.rows.map(([id, ...cells]) => ({ path: `${this.project}/${id}`, id, cells })));
      // Columns that runs do not have are left out; a warning says so.
      this.columns = this.columns.filter((column) => answer.columns.includes(column.name, 1));
      this.columns.forEach((column, place) => (column.number = answer.numeric[place + 1]));
    } finally {
      this.asked.delete(page);
    }
  }
}

// The complete result of the user's SQL; its rows are runs if it has their ids.
export class Answered {
  constructor(project, sql) {
    Object.assign(this, { project, sql, order: "", total: 0, warnings: [], rows: [] });
    this.stop = new AbortController();
  }

  async begin() {
    const began = performance.now();
    const answer = await post("/api/sql", { sql: this.sql, limit: 1000 }, this.stop.signal);
    const place = (name) => answer.columns.indexOf(name);
    const [entity, project, id, name] = ["entity", "project", "run_id", "name"].map(place);
    this.boxes = id >= 0;
    this.columns = answer.columns.map((title, at) => ({
      name: title,
      title,
      number: answer.numeric[at],
      kind: this.boxes && at === (name >= 0 ? name : id) ? "name" : "",
    }));
    // The column with the button comes first, next to the checkboxes.
    const first = this.columns.findIndex((column) => column.kind === "name");
    const order = first > 0 ? [first, ...answer.columns.keys()].filter((at, index) => index === 0 || at !== first) : null;
    if (order) this.columns = order.map((at) => this.columns[at]);
    this.rows = answer.rows.map((cells) => {
      const home = entity >= 0 && project >= 0 ? `${cells[entity]}/${cells[project]}` : this.project;
      const row = { cells: order ? order.map((at) => cells[at]) : cells };
      return this.boxes && cells[id] ? { ...row, path: `${home}/${cells[id]}`, id: cells[id] } : row;
    });
    this.total = answer.rows.length;
    this.took = performance.now() - began;
    this.warnings = answer.more ? ["there are more rows than are shown here; `mirror query` writes all of them"] : [];
    return this;
  }

  need() {}

  // A statement may be slow, so it is not run again automatically.
  async renew() {
    if (this.took < QUICK) await this.begin();
  }

  rowAt(index) {
    return this.rows[index];
  }

  close() {
    this.stop.abort();
  }
}
