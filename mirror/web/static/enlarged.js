// One chart as large as the window, with downloads: a picture, and the values that are drawn.

import { chip } from "./colours.js";
import { library, noteOf, paint } from "./charts.js";
import { byId, element, showText } from "./dom.js";
import { change, session } from "./session.js";
import { axisOf, axisTitle, layout, traces } from "./traces.js";

const SIZE = { width: 1200, height: 700, scale: 2 };

let shown = null;

export async function enlarge(figure) {
  shown = figure;
  change({ chart: figure.key });
  byId("enlarged-title").textContent = figure.key;
  showText(byId("enlarged-problem"), "");
  if (!byId("enlarged").open) byId("enlarged").showModal();
  await library();
  redraw();
}

// The chart that the address names, and new values of the one that is open.
export function follow(figures) {
  const figure = figures.get(session.view.chart);
  if (figure && (!byId("enlarged").open || figure !== shown)) enlarge(figure);
  else if (figure) redraw();
  else if (byId("enlarged").open) byId("enlarged").close();
}

function redraw() {
  showText(byId("enlarged-note"), noteOf(shown));
  byId("enlarged-legend").replaceChildren(
    ...shown.lines.map((line) => element("li", {}, chip(line), element("span", {}, line.name))),
  );
  paint(shown, byId("enlarged-plot"), { large: true });
}

byId("enlarged").addEventListener("close", () => {
  if (session.view.chart) change({ chart: "" });
  if (window.Plotly) window.Plotly.purge(byId("enlarged-plot"));
  byId("enlarged-plot").classList.remove("js-plotly-plot");
});

byId("download-png").addEventListener("click", async () => {
  try {
    const styles = getComputedStyle(document.documentElement);
    const named = traces(shown).map((trace) => ({ ...trace, showlegend: trace.meta !== undefined }));
    const picture = {
      ...layout(shown, { large: true }),
      paper_bgcolor: styles.getPropertyValue("--ground").trim(),
      title: { text: shown.key },
      margin: { l: 60, r: 20, t: 50, b: 50 },
      showlegend: shown.lines.length <= 30,
    };
    const address = await window.Plotly.toImage({ data: named, layout: picture }, { format: "png", ...SIZE });
    save(address, "png");
  } catch (error) {
    showText(byId("enlarged-problem"), `no picture could be made: ${error.message ?? error}`);
  }
});

byId("download-csv").addEventListener("click", () => {
  const content = new Blob([csv(shown)], { type: "text/csv" });
  const address = URL.createObjectURL(content);
  save(address, "csv");
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
});

function csv(figure) {
  const x = axisOf(figure) === "_step" ? "step" : axisOf(figure);
  const means = figure.curves.some((curve) => curve.low);
  const names = new Map(figure.lines.map((line) => [line.id, line.title ?? line.name]));
  const head = means ? ["group", "runs", x, `${figure.key} mean`, "low", "high", "n"] : ["run", "name", x, figure.key];
  const rows = figure.curves.flatMap((curve) =>
    curve.x.flatMap((at, place) => {
      if (curve.y[place] === null) return [];
      const value = [at, curve.y[place]];
      return [
        curve.low
          ? [curve.line, curve.runs, ...value, curve.low[place], curve.high[place], curve.n[place]]
          : [curve.line, names.get(curve.line) ?? "", ...value],
      ];
    }),
  );
  return [head, ...rows].map((row) => `${row.map(quoted).join(",")}\r\n`).join("");
}

const quoted = (cell) => (/[",\r\n]/.test(String(cell)) ? `"${String(cell).replaceAll('"', '""')}"` : String(cell));

function save(address, ending) {
  const name = `${shown.key.replaceAll(/[^\w.-]+/g, "_")} over ${axisTitle(axisOf(shown))}.${ending}`.replaceAll(/[\s/]+/g, "_");
  element("a", { href: address, download: name }).click();
}
