// Turns curves into what the chart library draws: lines, faint values behind smoothed lines, bands of means, and the axes.

import { transparent } from "./colours.js";
import * as format from "./format.js";

const AXES = { _step: "step", _runtime: "run time", _timestamp: "clock time" };
const FAINT_UP_TO = 20; // lines whose values are drawn faintly behind their smoothed line

// The key of the x axis: the chosen one, else the one from define_metric, else the step.
export function axisOf({ view, curves }) {
  return view.x ?? curves[0]?.x_key ?? "_step";
}

export const axisTitle = (key) => AXES[key] ?? key;

export function traces(figure) {
  const { lines, curves } = figure;
  const { smoothing } = figure.view;
  const clock = axisOf(figure) === "_timestamp";
  const byLine = new Map(curves.map((curve) => [curve.line, curve]));
  const bands = [];
  const faint = [];
  const drawn = [];
  for (const line of lines) {
    const curve = byLine.get(line.id);
    if (!curve?.x.length) continue;
    const x = clock ? curve.x.map(localTime) : curve.x;
    const common = { x, type: "scatter", hoverinfo: "none", showlegend: false };
    const stroke = { color: line.colour, width: 1.6, dash: line.dash };
    const mode = x.length === 1 ? "markers" : "lines";
    if (curve.low) bands.push(...bandOf(line, curve, common, smoothing));
    else if (smoothing > 0 && lines.length <= FAINT_UP_TO) {
      faint.push({ ...common, y: curve.y, mode, line: { ...stroke, width: 1 }, opacity: 0.25, hoverinfo: "skip" });
    }
    const y = smoothed(curve.y, smoothing);
    drawn.push({ ...common, y, mode, line: stroke, marker: { color: line.colour, size: 6 }, name: line.name, meta: line.id });
  }
  return [...bands, ...faint, ...drawn];
}

// One filled area for each stretch of a mean, since the library would fill across its gaps.
function bandOf(line, curve, common, smoothing) {
  const [low, high] = [smoothed(curve.low, smoothing), smoothed(curve.high, smoothing)];
  const made = [];
  const edge = { ...common, mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
  for (let start = 0, at = 0; at <= low.length; at += 1) {
    if (at < low.length && low[at] !== null) continue;
    if (at > start) {
      const x = common.x.slice(start, at);
      made.push({ ...edge, x, y: low.slice(start, at) });
      made.push({ ...edge, x, y: high.slice(start, at), fill: "tonexty", fillcolor: transparent(line.colour, 0.18) });
    }
    start = at + 1;
  }
  return made;
}

// An exponential moving average, corrected so that it does not start at zero. Null is a gap.
function smoothed(values, weight) {
  if (!weight) return values;
  let sum = 0;
  let share = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = sum * weight + value * (1 - weight);
    share = share * weight + (1 - weight);
    return sum / share;
  });
}

export function layout(figure, { large = false } = {}) {
  const { view, key } = figure;
  const xKey = axisOf(figure);
  const styles = getComputedStyle(document.documentElement);
  const [text, line] = ["--quiet", "--line"].map((name) => styles.getPropertyValue(name).trim());
  const clock = xKey === "_timestamp";
  const axis = { gridcolor: line, linecolor: line, zeroline: false, automargin: true, ticks: "" };
  const titled = figure.named || large;
  return {
    uirevision: `${key} ${xKey} ${view.log}`,
    margin: { l: 44, r: 12, t: 8, b: titled ? 40 : 28 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: large ? 13 : 11, color: text },
    hovermode: "x",
    hoverdistance: 40,
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    showlegend: false,
    xaxis: { ...axis, type: clock ? "date" : "linear", nticks: (clock ? 4 : 6) * (large ? 2 : 1), tickangle: 0,
      ticksuffix: xKey === "_runtime" ? " s" : "", ...(titled ? { title: { text: axisTitle(xKey), standoff: 6 } } : {}) },
    yaxis: { ...axis, type: view.log ? "log" : "linear", nticks: large ? 10 : 6, ...(view.log ? { dtick: "D2" } : {}) },
  };
}

// The library shows times unconverted, so convert them to local time.
function localTime(seconds) {
  return seconds * 1000 - new Date(seconds * 1000).getTimezoneOffset() * 60000;
}

export function place(x, axis) {
  if (axis === "_runtime") return `after ${format.duration(x)}`;
  if (axis === "_timestamp") return String(x).slice(0, 19);
  return `${axis === "_step" ? "step" : axis} ${format.float(x)}`;
}
