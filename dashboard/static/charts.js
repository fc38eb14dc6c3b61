// The histories, drawn by plotly.

import { byId, chosen, element, setText } from "./dom.js";
import { pipeline, word } from "./pipeline.js";
import { isOver, perspectivesInOrder, store } from "./store.js";

const REDRAW_MS = 2_000;
const OUT_OF_VIEW_MS = 15_000;
const MARGIN_PX = 200;
const GAPS_UP_TO = 40;
const FEWEST_TICKS = 3;
const CHARTS = [
  { id: "accuracy", only: "classification", title: () => "Online accuracy, task by task", draw: onlineAccuracy },
  { id: "remembered", only: "classification", title: () => "Accuracy matrix: top-1 on each task after each task", draw: accuracyMatrix },
  { id: "psnr", only: "scan", title: () => "PSNR, dB", draw: () => quality((channel) => `psnr_${channel}_db`, "threshold_psnr_phase_db") },
  { id: "ssim", only: "scan", title: () => "SSIM", draw: () => quality((channel) => `ssim_${channel}`, "threshold_ssim_phase") },
  { id: "residual", only: "scan", title: () => "Residual: energy of the newest frames not explained, %", draw: residuals },
  { id: "loss", title: () => "Loss", draw: losses },
  { id: "forgetting", title: () => `Validation loss on each ${word("section")} after each ${word("section")}`, draw: validationMatrix },
  { id: "rate", title: () => "Throughput, 1/s", draw: rates },
  { id: "latency", title: () => `Latency, ${word("latency").toLowerCase()}`, draw: latencies },
  { id: "buffer", title: () => "Rehearsal buffer, items", draw: bufferFill },
  { id: "steps", title: () => "Training step, ms (dotted: buffer in background)", draw: stepBreakdown },
];

const drawn = new Map();
let later = null;

// Charts are the costliest part of the page: those in view are drawn now and then, the others seldom and one at a time.
export function drawCharts() {
  if (!globalThis.Plotly || !store.present) return;
  const look = lookOfPage();
  const due = chartsOfPipeline().filter((chart) => isDue(chart, look));
  for (const chart of due.filter(isInView)) drawChart(chart, look);
  const next = due.find((chart) => !isInView(chart));
  if (next) drawChart(next, look);
  const rest = due.some((chart) => !isInView(chart) && chart !== next);
  if (rest) later ??= setTimeout(() => { later = null; drawCharts(); }, 0);
}

// For paper: whatever is out of view is brought up to date too.
export function drawAllCharts() {
  if (globalThis.Plotly && store.present) for (const chart of chartsOfPipeline()) drawChart(chart, lookOfPage());
}

function chartsOfPipeline() {
  if (!byId("charts").childElementCount) build();
  return CHARTS.filter(({ only }) => !only || only === pipeline());
}

function lookOfPage() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  return `${chosen("channel")} ${chosen("across")} ${document.documentElement.dataset.theme} ${dark} ${innerWidth}`;
}

function isInView(chart) {
  const { top, bottom } = frameOf(chart).getBoundingClientRect();
  return bottom > -MARGIN_PX && top < innerHeight + MARGIN_PX;
}

function isDue(chart, look) {
  const last = drawn.get(chart.id);
  return last?.look !== look || Date.now() - last.at >= (isInView(chart) ? REDRAW_MS : OUT_OF_VIEW_MS);
}

function drawChart(chart, look) {
  const { traces, layout } = chart.draw();
  const content = `${look} ${JSON.stringify(traces.map(({ x, y, z }) => [x, y, z]))}`;
  const last = drawn.get(chart.id);
  const same = last?.content === content;
  drawn.set(chart.id, { look, content, at: Date.now() });
  if (same) return;
  const some = traces.some((trace) => trace.x.length > 1 || trace.type === "heatmap");
  setText(`title-${chart.id}`, chart.title());
  frameOf(chart).classList.toggle("empty", !some);
  setText("charts-note", isOver() ? "There is nothing to draw." : "Curves appear as the run goes on.");
  byId("charts-note").hidden = document.querySelector(".chart:not(.empty)") !== null;
  // plotly keeps the height of a legend that had more rows
  if (last && last.look !== look) Plotly.purge(`chart-${chart.id}`);
  if (some) Plotly.react(`chart-${chart.id}`, traces, merged(layout), { displayModeBar: false, responsive: true });
}

function frameOf(chart) {
  return byId(`chart-${chart.id}`).parentElement;
}

// A chart takes room once it has something to show.
function build() {
  for (const { id, only = "" } of CHARTS) {
    byId("charts").append(element("section", { className: "chart card empty", dataset: only ? { only } : {} }, element("h3", { id: `title-${id}` }), element("div", { id: `chart-${id}` })));
  }
}

function quality(columnOf, threshold) {
  const column = columnOf(chosen("channel"));
  const { traces, layout } = { time: overTime, perspective: perPerspective, version: perVersion }[chosen("across")](column);
  const limit = chosen("channel") === "phase" ? store.present.regime[threshold] : null;
  const ends = traces.flatMap((trace) => trace.x);
  if (limit != null && ends.length > 1) {
    const x = [Math.min(...ends), Math.max(...ends)];
    traces.push({ x, y: [limit, limit], name: "good enough", mode: "lines", ...stroke("--good", "dot") });
  }
  return { traces, layout };
}

function overTime(column) {
  const newest = store.series.refreshed?.time_s.length ? "refreshed" : "first_pass";
  return {
    traces: [
      line("refreshed", column, "refreshed", "--refreshed", { mode: "lines+markers" }),
      line("first_pass", column, "first pass", "--first-pass", { mode: "lines+markers" }),
      line(newest, `constant_${column}`, "constant", "--constant", { dash: "dash" }),
    ],
    layout: timeAxis(),
  };
}

function perPerspective(column) {
  const rows = perspectivesInOrder();
  const trace = (pass, name, colour, dash) => {
    const shown = rows.filter((row) => row[pass]?.[column] != null);
    return { x: shown.map((row) => row.perspective), y: shown.map((row) => row[pass][column]), name, mode: "lines+markers", ...stroke(colour, dash) };
  };
  return {
    traces: [trace("refreshed", "refreshed", "--refreshed"), trace("first_pass", "first pass", "--first-pass"), trace("constant", "constant", "--constant", "dash")],
    layout: { xaxis: { title: { text: "perspective" }, tickformat: "d", nticks: Math.min(rows.length + 1, 9) } },
  };
}

function perVersion(column) {
  const trace = (series, name, colour) => {
    const data = store.series[series] ?? { time_s: [] };
    return { x: data.model_version ?? [], y: data[column] ?? [], name, mode: "markers", ...stroke(colour), marker: { size: 6, color: token(colour), opacity: 0.75 } };
  };
  return {
    traces: [trace("refreshed", "refreshed", "--refreshed"), trace("first_pass", "first pass", "--first-pass")],
    layout: { xaxis: { title: { text: "newest model version in the image" }, tickformat: "d" } },
  };
}

// Between cells; many are so small that nothing would be left of them.
function gap(cells) {
  return cells.length > GAPS_UP_TO ? 0 : 1;
}

// One row per evaluation, one column per section: a column that changes upwards is being forgotten.
function matrix(rows, { what, range = {} }) {
  const columns = [...new Set(rows.flatMap(({ figures }) => Object.keys(figures).map(Number)))].sort((a, b) => a - b);
  const z = rows.map(({ figures }) => columns.map((column) => figures[column] ?? null));
  const axis = (title, values) => ({ title: { text: title }, tickformat: "d", nticks: Math.min(values.length + 1, 9), showgrid: false });
  const after = rows.map((row) => row.after);
  const bar = { thickness: 8, outlinewidth: 0, tickfont: { size: 10 }, nticks: 4 };
  const section = word("section");
  const heat = {
    type: "heatmap", x: columns, y: after, z, colorscale: "Viridis", colorbar: bar, xgap: gap(columns), ygap: gap(rows), ...range,
    hovertemplate: `${section} %{x} after ${section} %{y}: ${what} %{z:.3f}<extra></extra>`,
  };
  return {
    traces: rows.length > 1 || columns.length > 1 ? [heat] : [],
    layout: { xaxis: axis(section, columns), yaxis: axis(`after ${section}`, after), hovermode: "closest", showlegend: false },
  };
}

function validationMatrix() {
  const rows = [...store.validation.values()].map((row) => ({ after: row.after_perspective, figures: row.losses }));
  return matrix(rows.sort((a, b) => a.after - b.after), { what: "loss" });
}

function accuracyMatrix() {
  const rows = store.present.classification.accuracies.map((row) => ({ after: row.after_task, figures: row.top1 }));
  return matrix(rows, { what: "top-1", range: { zmin: 0, zmax: 1 } });
}

// The lines are broken where another task begins.
function onlineAccuracy() {
  const { chance_top1: one, chance_top5: five } = store.present.classification;
  const tasks = store.series.tasks?.task ?? [];
  const broken = (trace) => {
    const at = tasks.flatMap((task, index) => (index && task !== tasks[index - 1] ? [null, index] : [index]));
    return { ...trace, x: at.map((index) => (index === null ? null : trace.x[index])), y: at.map((index) => (index === null ? null : trace.y[index])) };
  };
  const traces = [line("tasks", "top1", "top-1", "--refreshed"), line("tasks", "top5", "top-5", "--first-pass")];
  const { x } = traces[0];
  if (x.length < 2) return { traces: [], layout: {} };
  const guesses = [["guessing, top-1", one], ["guessing, top-5", five]].map(([name, value]) => (
    { x: [x[0], x.at(-1)], y: [value, value], name, mode: "lines", ...stroke("--constant", "dash") }));
  return { traces: [...traces.map(broken), ...guesses], layout: { ...timeAxis(), yaxis: { range: [0, 1.02] } } };
}

// The score without ground truth, as it comes.
function residuals() {
  const trace = line("residual", "newest", "first pass", "--first-pass");
  return { traces: [{ ...trace, y: trace.y.map((value) => 100 * value) }], layout: { ...timeAxis(), yaxis: { rangemode: "tozero" }, showlegend: false } };
}

function losses() {
  const traces = [
    line("training", "loss", "training", "--training"),
    line("validation", "mean_over_seen", "validation", "--validation", { mode: "lines+markers" }),
    line("validation", "constant", word("baseline"), "--constant", { dash: "dash" }),
  ];
  const ticks = logTicks(traces.flatMap(({ y }) => y.filter((value) => value > 0)));
  return { traces, layout: { ...timeAxis(), yaxis: { type: "log", tickvals: ticks, ticktext: ticks.map(String) } } };
}

// Between 1, 2 and 5 there is room for losses that lie close together: then the ticks are evenly apart.
function logTicks(values) {
  if (!values.length) return [];
  const [low, high] = values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, 0]);
  const round = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const digit of [1, 2, 5]) round.push(Number(`${digit}e${power}`));
  }
  const inside = round.filter((tick) => tick >= low && tick <= high);
  if (inside.length >= FEWEST_TICKS || low === high) return inside.length ? inside : [Number(low.toPrecision(2))];
  const rough = (high - low) / FEWEST_TICKS;
  const unit = Number(`1e${Math.floor(Math.log10(rough))}`);
  const step = [5, 2, 1].find((digit) => digit * unit <= rough) * unit;
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(6)));
}

function rates() {
  return {
    traces: [line("edge", "frames_per_s", word("imaged"), "--refreshed"), line("training", "samples_per_s", "samples trained", "--training")],
    layout: { ...timeAxis(), yaxis: { rangemode: "tozero" } },
  };
}

function latencies() {
  return {
    traces: [inSeconds(line("edge", "frame_to_image_p99_ms", "99th percentile", "--first-pass")), inSeconds(line("edge", "frame_to_image_p50_ms", "median", "--refreshed"))],
    layout: { ...timeAxis(), yaxis: { rangemode: "tozero", tickformat: "~s", ticksuffix: "s", hoverformat: ".3s" } },
  };
}

function inSeconds(trace) {
  return { ...trace, y: trace.y.map((value) => (value == null ? null : value / 1000)) };
}

function bufferFill() {
  return {
    traces: [line("buffer", "size", "stored", "--validation", { fill: "tozeroy" }), line("buffer", "capacity", "capacity", "--constant", { dash: "dash" })],
    layout: { ...timeAxis(), yaxis: { rangemode: "tozero" } },
  };
}

function stepBreakdown() {
  const stacked = (column, name, colour) => line("steps", column, name, colour, { stackgroup: "step" });
  return {
    traces: [
      stacked("load_ms", "load", "--first-pass"), stacked("train_ms", "train", "--refreshed"), stacked("buffer_wait_ms", "wait", "--bad"),
      line("steps", "populate_ms", "update", "--constant", { dash: "dot" }),
      line("steps", "augment_ms", "sample", "--validation", { dash: "dot" }),
    ],
    layout: { ...timeAxis(), yaxis: { rangemode: "tozero" } },
  };
}

function line(series, column, name, colour, { mode = "lines", dash = "solid", ...more } = {}) {
  const data = store.series[series] ?? { time_s: [] };
  const { start, unit } = clock();
  return { x: data.time_s.map((time) => (time - start) / unit), y: data[column] ?? [], name, mode, ...stroke(colour, dash), ...more };
}

function stroke(colour, dash = "solid") {
  return { line: { color: token(colour), width: dash === "solid" ? 2 : 1.5, dash }, marker: { size: 4, color: token(colour) } };
}

function clock() {
  const start = store.present.started_s ?? 0;
  const elapsed = (store.present.last_event_s ?? start) - start;
  return elapsed > 7200 ? { start, unit: 3600, name: "hours" } : { start, unit: 60, name: "minutes" };
}

function timeAxis() {
  return { xaxis: { title: { text: clock().name }, rangemode: "tozero" } };
}

function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function merged(layout) {
  const axis = { gridcolor: token("--grid"), linecolor: token("--grid"), zeroline: false, ticks: "", automargin: true };
  const title = { font: { size: 11 }, standoff: 6 };
  return {
    height: 210,
    margin: { l: 44, r: 10, t: 26, b: 36 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: token("--muted") },
    hovermode: layout.hovermode ?? "x unified",
    hoverlabel: { bgcolor: token("--card"), bordercolor: token("--line"), font: { color: token("--ink") } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 }, bgcolor: "rgba(0,0,0,0)" },
    showlegend: layout.showlegend ?? true,
    xaxis: { ...axis, ...layout.xaxis, title: { ...title, ...layout.xaxis?.title } },
    yaxis: { ...axis, ...layout.yaxis, title: { ...title, ...layout.yaxis?.title } },
  };
}
