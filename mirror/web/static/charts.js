// Line charts of metrics, one for each key. The chart library is loaded when the first chart is needed.

import { chip } from "./colours.js";
import { byId, element } from "./dom.js";
import * as format from "./format.js";
import { axisOf, layout, place, traces } from "./traces.js";

const LISTED = 14;

let loading = null;

export function library() {
  loading ??= new Promise((resolve, reject) => {
    const script = element("script", { src: "/charts-library.js" });
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => {
      loading = null;
      reject(new Error("the chart library cannot be loaded from the daemon"));
    });
    document.head.append(script);
  });
  return loading;
}

export class Charts {
  // `enlarge`, if given, is called with the figure whose button was pressed.
  constructor(container, enlarge = null) {
    this.container = container;
    this.enlarge = enlarge;
    this.figures = new Map();
    this.seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const figure = this.figures.get(entry.target.dataset.key);
        if (!figure) continue;
        figure.inSight = entry.isIntersecting;
        if (figure.inSight && figure.stale) this.#paint(figure);
      }
    }, { rootMargin: "300px" });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paintAll());
    addEventListener("scroll", hideReadout, { passive: true });
  }

  // `lines` are {id, name, colour, dash}; a curve has the id of its line in `line`; `view` is {x, smoothing, log}.
  async draw(keys, lines, curves, view) {
    // A chosen axis is shown above the charts. If definitions give some charts different axes, each chart names its own.
    const named = view.x === null && curves.some((curve) => curve.x_key !== "_step");
    for (const [key, figure] of this.figures) {
      if (!keys.includes(key)) this.#drop(figure);
    }
    keys.forEach((key, at) => {
      const figure = this.figures.get(key) ?? this.#figure(key);
      if (this.container.children[at] !== figure.element) {
        this.container.insertBefore(figure.element, this.container.children[at] ?? null);
      }
      Object.assign(figure, { curves: curves.filter((curve) => curve.key === key), lines, view, named, stale: true });
      this.#note(figure);
    });
    if (!keys.length) return;
    await library();
    this.#paintAll();
  }

  #figure(key) {
    const plot = element("div", { class: "plot", role: "img" });
    const note = element("span", { class: "quiet" });
    const figure = { key, plot, note, inSight: false, stale: true, curves: [], lines: [] };
    const button = this.enlarge && element(
      "button",
      { type: "button", class: "enlarge", title: "Enlarge, download", "aria-label": `Enlarge ${key}`, onclick: () => this.enlarge(figure) },
      "⤢",
    );
    figure.element = element("figure", { "data-key": key }, element("figcaption", {}, element("span", {}, key), note, button), plot);
    this.figures.set(key, figure);
    this.seen.observe(figure.element);
    return figure;
  }

  #drop(figure) {
    this.seen.unobserve(figure.element);
    if (window.Plotly) window.Plotly.purge(figure.plot);
    figure.element.remove();
    this.figures.delete(figure.key);
  }

  #note(figure) {
    figure.note.textContent = noteOf(figure);
    figure.note.title = figure.note.textContent;
    const drawn = figure.curves.filter((curve) => curve.x.length).length;
    const means = figure.curves.some((curve) => curve.low);
    figure.plot.setAttribute("aria-label", `${figure.key}: ${means ? `means of ${format.count(drawn, "group")}` : `lines of ${format.count(drawn, "run")}`}`);
  }

  #paintAll() {
    for (const figure of this.figures.values()) {
      figure.stale = true;
      if (figure.inSight) this.#paint(figure);
    }
  }

  #paint(figure) {
    if (!window.Plotly || !figure.view) return;
    figure.stale = false;
    paint(figure, figure.plot);
  }
}

// Draw a figure into an element, and show the values at the pointer.
export function paint(figure, plot, options = {}) {
  const fresh = !plot.classList.contains("js-plotly-plot");
  plot.figure = figure;
  window.Plotly.react(plot, traces(figure), layout(figure, options), { displayModeBar: false, responsive: true, doubleClick: "reset" });
  if (!fresh) return;
  plot.on("plotly_hover", (event) => read(plot.figure, event));
  plot.on("plotly_unhover", hideReadout);
}

// What is to be known of the curves of a chart: values that cannot be drawn, and how many runs its means are of.
export function noteOf({ curves }) {
  const odd = curves.reduce((sum, curve) => sum + (curve.not_finite ?? 0), 0);
  const counts = curves.flatMap((curve) => (curve.n ?? []).filter((_, at) => curve.y[at] !== null));
  const [fewest, most] = [Math.min(...counts), Math.max(...counts)];
  const n = counts.length ? `n ${fewest === most ? most : `${fewest} to ${most}`}` : "";
  const apart = curves.filter((curve) => curve.n && !curve.n.length).length;
  const ends = curves.some((curve) => curve.ends_early && curve.n.length) ? "ends below half" : "";
  return [
    [n, ends].filter(Boolean).join(", "),
    apart ? `${format.count(apart, "group")} not drawn: too few runs with values at the same x` : "",
    odd ? `${format.count(odd, "value")} not finite` : "",
  ].filter(Boolean).join(" · ");
}

// The values of all lines at the pointer's position, highest first.
function read(figure, { points, event }) {
  const real = points.filter((point) => point.data.meta !== undefined);
  if (!real.length) return;
  const readout = byId("readout");
  const named = new Map(figure.lines.map((line) => [line.id, line]));
  const curves = new Map(figure.curves.map((curve) => [curve.line, curve]));
  real.sort((one, other) => other.y - one.y);
  const rows = real.slice(0, LISTED).map((point) => {
    const line = named.get(point.data.meta);
    const curve = curves.get(point.data.meta);
    const value = curve?.n ? `${format.float(point.y)}, n ${curve.n[point.pointNumber]}` : format.float(point.y);
    return element("p", {}, line ? chip(line) : element("span"), element("span", {}, line?.name ?? ""), element("span", {}, value));
  });
  const more = real.length > LISTED ? [element("p", { class: "quiet" }, `and ${real.length - LISTED} more`)] : [];
  readout.replaceChildren(element("p", { class: "quiet" }, place(real[0].x, axisOf(figure))), ...rows, ...more);
  // Beside a chart in a dialog, which is above everything else of the page.
  (event.target.closest?.("dialog") ?? document.body).append(readout);
  readout.hidden = false;
  const { width, height } = readout.getBoundingClientRect();
  const left = event.clientX + 18 + width > innerWidth ? event.clientX - 18 - width : event.clientX + 18;
  readout.style.left = `${Math.max(4, left)}px`;
  readout.style.top = `${Math.max(4, Math.min(event.clientY - height / 2, innerHeight - height - 4))}px`;
}

function hideReadout() {
  byId("readout").hidden = true;
}
