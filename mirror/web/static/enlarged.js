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
    const drawing = await window.Plotly.toImage({ data: named, layout: picture }, { format: "svg", width: SIZE.width, height: SIZE.height });
    offer(await painted(drawing), "png");
  } catch (error) {
    showText(byId("enlarged-problem"), `no picture could be made: ${error.message ?? error}`);
  }
});

byId("download-csv").addEventListener("click", () => {
  offer(new Blob([csv(shown)], { type: "text/csv" }), "csv");
});

// The chart library would load the picture from a blob: address, which the page's content security policy forbids.
async function painted(address) {
  const image = new Image(SIZE.width, SIZE.height);
  image.src = address;
  await image.decode();
  const canvas = element("canvas", { width: SIZE.width * SIZE.scale, height: SIZE.height * SIZE.scale });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((content) => (content ? resolve(content) : reject(new Error("the browser made none"))), "image/png");
  });
}

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

function offer(content, ending) {
  const name = `${shown.key} over ${axisTitle(axisOf(shown))}`.replaceAll(/[^\w.-]+/g, "_");
  const address = URL.createObjectURL(content);
  element("a", { href: address, download: `${name}.${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
