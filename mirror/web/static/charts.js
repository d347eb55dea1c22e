// Line charts of metrics, one for each key. The chart library is loaded when the first chart is needed.

import { element } from "./dom.js";
import * as format from "./format.js";

const COLOURS = [
  "#4269d0", "#e0940f", "#ff6a55", "#3aa58f", "#5aa33c", "#f27fb0", "#a463f2", "#6aa5f0", "#a87252", "#8b929c",
];
const AXES = { _step: "step", _runtime: "run time", _timestamp: "clock time" };
const FAINT_UP_TO = 20; // runs whose values are drawn faintly behind their smoothed line

export const colour = (slot) => COLOURS[slot % COLOURS.length];

let loading = null;

function library() {
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
  constructor(container, readout) {
    this.container = container;
    this.readout = readout;
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
    addEventListener("scroll", () => this.#hide(), { passive: true });
  }

  // `runs` are {path, name, colour}; `curves` the response of /api/history; `view` is {x, smoothing, log}.
  async draw(keys, runs, curves, view) {
    // A chosen axis is shown above the charts. If definitions give some charts different axes, each chart names its own.
    const named = view.x === null && curves.some((curve) => curve.x_key !== "_step");
    for (const [key, figure] of this.figures) {
      if (!keys.includes(key)) this.#drop(figure);
    }
    keys.forEach((key, place) => {
      const figure = this.figures.get(key) ?? this.#figure(key);
      if (this.container.children[place] !== figure.element) {
        this.container.insertBefore(figure.element, this.container.children[place] ?? null);
      }
      figure.curves = curves.filter((curve) => curve.key === key);
      figure.runs = runs;
      figure.view = view;
      figure.named = named;
      figure.stale = true;
      this.#note(figure);
    });
    if (!keys.length) return;
    await library();
    this.#paintAll();
  }

  #figure(key) {
    const plot = element("div", { class: "plot", role: "img" });
    const note = element("span", { class: "quiet" });
    const figure = { key, plot, note, inSight: false, stale: true, curves: [], runs: [] };
    figure.element = element("figure", { "data-key": key }, element("figcaption", {}, key, note), plot);
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
    const odd = figure.curves.reduce((sum, curve) => sum + curve.not_finite, 0);
    figure.note.textContent = odd ? `${format.count(odd, "value")} not finite` : "";
    const drawn = figure.curves.filter((curve) => curve.x.length).length;
    figure.plot.setAttribute("aria-label", `${figure.key}: lines of ${format.count(drawn, "run")}`);
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
    const fresh = !figure.painted;
    figure.painted = true;
    window.Plotly.react(figure.plot, traces(figure), layout(figure), {
      displayModeBar: false,
      responsive: true,
      doubleClick: "reset",
    });
    if (!fresh) return;
    figure.plot.on("plotly_hover", (event) => this.#read(figure, event));
    figure.plot.on("plotly_unhover", () => this.#hide());
  }

  // The values of all runs at the pointer's position, highest first.
  #read(figure, { points, event }) {
    const real = points.filter((point) => point.data.meta);
    if (!real.length) return;
    const named = new Map(figure.runs.map((run) => [run.path, run]));
    real.sort((one, other) => other.y - one.y);
    const lines = real.slice(0, 14).map((point) => {
      const run = named.get(point.data.meta);
      const chip = element("span", { class: "chip", colour: run?.colour });
      return element("p", {}, chip, element("span", {}, run?.name ?? ""), element("span", {}, format.float(point.y)));
    });
    const more = real.length > 14 ? [element("p", { class: "quiet" }, `and ${real.length - 14} more`)] : [];
    this.readout.replaceChildren(element("p", { class: "quiet" }, place(real[0].x, axisOf(figure))), ...lines, ...more);
    this.readout.hidden = false;
    const { width, height } = this.readout.getBoundingClientRect();
    const left = event.clientX + 18 + width > innerWidth ? event.clientX - 18 - width : event.clientX + 18;
    this.readout.style.left = `${Math.max(4, left)}px`;
    this.readout.style.top = `${Math.max(4, Math.min(event.clientY - height / 2, innerHeight - height - 4))}px`;
  }

  #hide() {
    this.readout.hidden = true;
  }
}

// The key of the x axis: the chosen one, else the one from define_metric, else the step.
function axisOf({ view, curves }) {
  return view.x ?? curves[0]?.x_key ?? "_step";
}

function traces(figure) {
  const { runs, curves } = figure;
  const { smoothing } = figure.view;
  const clock = axisOf(figure) === "_timestamp";
  const byPath = new Map(curves.map((curve) => [curve.run, curve]));
  const faint = [];
  const lines = [];
  for (const run of runs) {
    const curve = byPath.get(run.path);
    if (!curve?.x.length) continue;
    const x = clock ? curve.x.map(localTime) : curve.x;
    const common = { x, type: "scatter", hoverinfo: "none", showlegend: false };
    const line = { color: run.colour, width: 1.6 };
    const mode = x.length === 1 ? "markers" : "lines";
    if (smoothing > 0 && runs.length <= FAINT_UP_TO) {
      faint.push({ ...common, y: curve.y, mode, line: { ...line, width: 1 }, opacity: 0.25, hoverinfo: "skip" });
    }
    const y = smoothing > 0 ? smoothed(curve.y, smoothing) : curve.y;
    lines.push({ ...common, y, mode, line, marker: { color: run.colour, size: 6 }, name: run.name, meta: run.path });
  }
  return [...faint, ...lines];
}

// An exponential moving average, corrected so that it does not start at zero.
function smoothed(values, weight) {
  let sum = 0;
  let share = 0;
  return values.map((value) => {
    sum = sum * weight + value * (1 - weight);
    share = share * weight + (1 - weight);
    return sum / share;
  });
}

function layout(figure) {
  const { view, key } = figure;
  const xKey = axisOf(figure);
  const styles = getComputedStyle(document.documentElement);
  const [text, line] = ["--quiet", "--line"].map((name) => styles.getPropertyValue(name).trim());
  const clock = xKey === "_timestamp";
  const axis = { gridcolor: line, linecolor: line, zeroline: false, automargin: true, ticks: "" };
  return {
    uirevision: `${key} ${xKey} ${view.log}`,
    margin: { l: 44, r: 12, t: 8, b: figure.named ? 40 : 28 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: text },
    hovermode: "x",
    hoverdistance: 40,
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    showlegend: false,
    xaxis: { ...axis, type: clock ? "date" : "linear", nticks: clock ? 4 : 6, tickangle: 0, ticksuffix: xKey === "_runtime" ? " s" : "",
      ...(figure.named ? { title: { text: AXES[xKey] ?? xKey, standoff: 6 } } : {}) },
    yaxis: { ...axis, type: view.log ? "log" : "linear", nticks: 6, ...(view.log ? { dtick: "D2" } : {}) },
  };
}

// The library shows times unconverted, so convert them to local time.
function localTime(seconds) {
  return seconds * 1000 - new Date(seconds * 1000).getTimezoneOffset() * 60000;
}

function place(x, axis) {
  if (axis === "_runtime") return `after ${format.duration(x)}`;
  if (axis === "_timestamp") return String(x).slice(0, 19);
  return `${axis === "_step" ? "step" : axis} ${format.float(x)}`;
}
