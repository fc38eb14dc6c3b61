// The stitched images: network, reference and difference, for phase and amplitude.

import { byId, chosen, element, setText } from "./dom.js";
import { fixed, length } from "./format.js";
import { store } from "./store.js";

const CHANNELS = [
  { name: "phase", title: "Phase", unit: "rad" },
  { name: "amplitude", title: "Amplitude", unit: "" },
];
const VIEWS = [
  { name: "network", title: "Network" },
  { name: "reference", title: "Reference" },
  { name: "difference", title: "Difference" },
];
const GROUND_TRUTHS = { ptychi: "phase retrieval", tike: "phase retrieval", recorded: "recorded object", simulated: "true specimen" };
const SCALE_BAR_SHARE = 0.3;

const figures = new Map();

export function drawImages() {
  if (!figures.size) build();
  drawChooser();
  const perspective = chosenPerspective();
  const rows = (store.present.mosaics ?? []).filter((row) => row.perspective === perspective);
  const pass = chosenPass(rows);
  const [height, width] = gridOf(rows, pass)?.shape_px ?? [1, 1];
  byId("figures").style.setProperty("--aspect", String(width / height));
  for (const channel of CHANNELS) {
    for (const view of VIEWS) showFigure(figures.get(`${view.name}-${channel.name}`), rows, pass);
  }
  drawNote(rows, pass);
}

export function step(direction) {
  const select = byId("perspective");
  const index = Math.min(Math.max(select.selectedIndex - direction, 0), select.options.length - 1);
  select.selectedIndex = index;
}

export function chosenPerspective() {
  const value = byId("perspective").value;
  return value === "newest" ? newest() : Number(value);
}

function gridOf(rows, pass) {
  return rows.find((row) => row.kind === pass) ?? rows.find((row) => row.kind === "reference");
}

// The refreshed image is there only once newer weights came: the first pass stands in until then.
export function chosenPass(rows) {
  const pass = chosen("pass");
  return rows.some((row) => row.kind === pass) ? pass : "first_pass";
}

function newest() {
  return Math.max(...store.present.mosaics.map((row) => row.perspective));
}

function drawChooser() {
  const select = byId("perspective");
  const wanted = [...new Set(store.present.mosaics.map((row) => row.perspective))].sort((a, b) => b - a);
  const shown = [...select.options].slice(1).map((option) => Number(option.value));
  if (wanted.join() !== shown.join()) {
    const value = select.value;
    select.replaceChildren(select.options[0], ...wanted.map((index) => element("option", { value: String(index) })));
    select.value = wanted.includes(Number(value)) ? value : "newest";
  }
  for (const option of [...select.options].slice(1)) option.textContent = label(Number(option.value));
  byId("previous").disabled = select.selectedIndex >= select.options.length - 1;
  byId("next").disabled = select.selectedIndex <= 0;
}

function label(perspective) {
  const angle = store.perspectives.get(perspective)?.angle_deg;
  return angle == null ? `Perspective ${perspective}` : `Perspective ${perspective}, ${fixed(angle, 1)}°`;
}

function drawNote(rows, pass) {
  const shown = rows.find((row) => row.kind === pass);
  const substitute = shown && pass !== chosen("pass") ? " No frame has been imaged again yet: this is the first pass." : "";
  const text = shown
    ? `${label(shown.perspective)}, up to model version ${shown.model_version}. Pixel ${length(shown.pixel_size_m[1])}. ` +
      `Network and reference (${GROUND_TRUTHS[store.present.scan?.ground_truth] ?? "ground truth"}) share their colours.${substitute}`
    : "Images appear as soon as the edge has weights and frames.";
  setText("images-note", text);
}

function build() {
  for (const channel of CHANNELS) {
    for (const view of VIEWS) {
      const figure = makeFigure(channel, view);
      figures.set(`${view.name}-${channel.name}`, figure);
      byId("figures").append(figure.node);
    }
  }
}

function makeFigure(channel, view) {
  const title = `${channel.title}, ${view.title.toLowerCase()}`;
  const canvas = element("canvas", { width: 1, height: 1, ariaLabel: title, role: "img" });
  const scaleBar = element("div", { className: "scale-bar", hidden: true }, element("i"), element("span"));
  const waiting = element("span", { className: "waiting", textContent: "waiting" });
  const lower = element("span", { className: "lower" });
  const upper = element("span", { className: "upper" });
  const bar = element("img", { alt: "", className: "colours" });
  const node = element(
    "figure", { dataset: { view: view.name, channel: channel.name } },
    element("figcaption", {}, element("b", { textContent: channel.title }), ` ${view.title.toLowerCase()}`),
    element("div", { className: "frame" }, canvas, scaleBar, waiting),
    element("div", { className: "colour-bar" }, lower, bar, upper),
  );
  return { node, canvas, scaleBar, waiting, bar, lower, upper, channel, view, shown: "", loading: false };
}

function showFigure(figure, rows, pass) {
  const kind = { network: pass, reference: "reference", difference: `difference_${pass}` }[figure.view.name];
  const grid = gridOf(rows, pass);
  const needed = { network: [pass], reference: ["reference"], difference: [pass, "reference"] }[figure.view.name];
  const there = needed.every((name) => rows.some((row) => row.kind === name));
  figure.node.classList.toggle("empty", !there);
  if (!there) {
    figure.waiting.textContent = figure.view.name === "network" ? waitingFor() : "waiting for the reference";
    figure.scaleBar.hidden = true;
    figure.shown = "";
    return;
  }
  const revision = Math.max(...rows.filter((row) => dependsOn(figure.view.name, row.kind, pass)).map((row) => row.revision));
  const address = `/api/mosaics/${grid.perspective}/${kind}/${figure.channel.name}.png?v=${store.present.instance}-${revision}`;
  drawScaleBar(figure, grid);
  if (address !== figure.shown && !figure.loading) load(figure, address, grid);
}

function waitingFor() {
  return store.present.weights.applied == null ? "waiting for the network’s first weights" : "waiting for frames";
}

// Colours come from the reference, and the reference is shown on the grid of the newest prediction.
function dependsOn(view, kind, pass) {
  return view === "reference" || kind === pass || kind === "reference";
}

async function load(figure, address, grid) {
  figure.loading = true;
  try {
    const answer = await fetch(address);
    if (!answer.ok) return;
    paint(figure, await createImageBitmap(await answer.blob()));
    const [lower, upper] = ["X-Lower", "X-Upper"].map((name) => Number(answer.headers.get(name)));
    figure.bar.src = `/api/colour_maps/${answer.headers.get("X-Colour-Map")}.png`;
    figure.lower.textContent = fixed(lower, 2);
    figure.upper.textContent = `${fixed(upper, 2)} ${figure.channel.unit}`.trim();
    figure.shown = address;
    drawScaleBar(figure, grid);
  } catch (error) {
    console.info(`image not loaded: ${error}`);
  } finally {
    figure.loading = false;
  }
}

function paint(figure, bitmap) {
  Object.assign(figure.canvas, { width: bitmap.width, height: bitmap.height });
  figure.canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
}

function drawScaleBar(figure, grid) {
  const { clientWidth, clientHeight } = figure.canvas;
  const [height, width] = grid.shape_px;
  const magnification = Math.min(clientWidth / width, clientHeight / height);
  const metresPerPixel = grid.pixel_size_m[1] / magnification;
  const size = roundDown(width * magnification * SCALE_BAR_SHARE * metresPerPixel);
  figure.scaleBar.firstChild.style.width = `${size / metresPerPixel}px`;
  figure.scaleBar.lastChild.textContent = length(size);
  figure.scaleBar.hidden = !(magnification > 0);
}

// 1, 2 or 5 times a power of ten.
function roundDown(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return power * [5, 2, 1].find((factor) => factor * power <= size * 1.0001);
}
