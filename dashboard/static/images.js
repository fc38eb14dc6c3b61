// The stitched images: network, reference and difference, for phase and amplitude.

import { comparison, drawCompared, watchDivider } from "./compare.js";
import { chosenLimits, showLimits, valueOf } from "./colours.js";
import { askRedraw, byId, chosen, element, setText } from "./dom.js";
import { fixed, length, signed } from "./format.js";
import { loadPicture } from "./pictures.js";
import { drawProbe } from "./probe.js";
import { drawResidual, loadResidual, residualNote } from "./residual.js";
import { drawSaving } from "./saving.js";
import { drawScaleBar } from "./scalebar.js";
import { address, store } from "./store.js";
import { tileOver, tilesInView } from "./tiles.js";
import { placement, pointer, view, watchPointer } from "./view.js";

const CHANNELS = [
  { name: "phase", title: "Phase", unit: "rad" },
  { name: "amplitude", title: "Amplitude", unit: "" },
];
const VIEWS = [
  { name: "network", title: "network" },
  { name: "reference", title: "reference" },
  { name: "difference", title: "difference" },
];
const FIXED_CHOICES = 2;
const GROUND_TRUTHS = { ptychi: "phase retrieval", tike: "phase retrieval", recorded: "recorded object", simulated: "true specimen" };

const figures = new Map();
const archived = new Map();

export function drawImages() {
  if (!figures.size) build();
  drawChooser();
  const perspective = chosenPerspective();
  const rows = rowsOf(perspective);
  const pass = chosenPass(rows);
  const grid = gridOf(rows, pass);
  const mode = retrieved(rows) ? comparison() : "alone";
  byId("figures").dataset.compare = mode;
  byId("figures").classList.toggle("enlarged", view.zoom > 1);
  byId("divider").hidden = mode !== "slider";
  const [height, width] = grid?.shape_px ?? [1, 1];
  byId("figures").style.setProperty("--aspect", String(width / height));
  for (const figure of figures.values()) showFigure(figure, { rows, pass, grid, mode });
  drawNote(rows, pass, grid, figures.get("network-phase").layer);
  drawSaving(perspective, rows, pass);
}

// Go to an earlier (-1) or later (1) perspective.
export function leaf(direction) {
  const select = byId("perspective");
  select.selectedIndex = Math.min(Math.max(select.selectedIndex - direction, 0), select.options.length - 1);
}

export function chosenPerspective() {
  const { value } = byId("perspective");
  if (value === "compared") return newestCompared();
  return value === "newest" ? newest() : Number(value);
}

// The refreshed image is there only once newer weights came: the first pass stands in until then.
function chosenPass(rows) {
  const pass = chosen("pass");
  return rows.some((row) => row.kind === pass) ? pass : "first_pass";
}

// Images at hand, or else those in the run's folder, which are asked for once.
function rowsOf(perspective) {
  const rows = store.present.mosaics.filter((row) => row.perspective === perspective);
  if (rows.length || !Number.isFinite(perspective)) return rows;
  const key = `${store.present.instance}-${perspective}`;
  if (!archived.has(key)) askArchive(key, perspective);
  return archived.get(key);
}

async function askArchive(key, perspective) {
  archived.set(key, []);
  const answer = await fetch(address(`/api/mosaics/${perspective}`));
  if (answer.ok) archived.set(key, await answer.json());
  askRedraw();
}

function gridOf(rows, pass) {
  return rows.find((row) => row.kind === pass) ?? retrieved(rows);
}

// The reference, or what phase retrieval shows so far of a perspective that is still being scanned.
function retrieved(rows) {
  return rows.find((row) => row.kind === "reference") ?? rows.find((row) => row.kind === "preview");
}

function known() {
  const shown = [...store.present.mosaics.map((row) => row.perspective), ...store.perspectives.keys()];
  return [...new Set(shown)].sort((a, b) => b - a);
}

function newest() {
  const atHand = store.present.mosaics.map((row) => row.perspective);
  return Math.max(...(atHand.length ? atHand : store.perspectives.keys()));
}

// Ground truth comes later than frames: the newest perspective has usually no reference yet.
function newestCompared() {
  const atHand = store.present.mosaics.filter((row) => row.kind === "reference").map((row) => row.perspective);
  return atHand.length ? Math.max(...atHand) : newest();
}

function drawChooser() {
  const select = byId("perspective");
  const wanted = known();
  const shown = [...select.options].slice(FIXED_CHOICES).map((option) => Number(option.value));
  if (wanted.join() !== shown.join()) {
    const { value } = select;
    select.replaceChildren(...[...select.options].slice(0, FIXED_CHOICES), ...wanted.map((index) => element("option", { value: String(index) })));
    select.value = value;
    if (select.selectedIndex < 0) select.value = "newest";
  }
  for (const option of [...select.options].slice(FIXED_CHOICES)) option.textContent = label(Number(option.value));
  byId("previous").disabled = select.selectedIndex >= select.options.length - 1;
  byId("next").disabled = select.selectedIndex <= 0;
}

function label(perspective) {
  const angle = store.perspectives.get(perspective)?.angle_deg;
  return angle == null ? `Perspective ${perspective}` : `Perspective ${perspective} at ${fixed(angle, 1)}°`;
}

function drawNote(rows, pass, grid, layer) {
  const shown = rows.find((row) => row.kind === pass);
  if (!shown) {
    setText("images-note", `Images appear as soon as the edge has weights and frames.${previewed(rows)}`);
    return;
  }
  const substitute = pass === chosen("pass") ? "" : " Not imaged again yet: this is the first pass.";
  const pending = rows.some((row) => row.kind === "reference") ? "" : `${previewed(rows)} The reference comes with the ground truth of this perspective.`;
  const truth = GROUND_TRUTHS[store.present.scan?.ground_truth] ?? "ground truth";
  const [height, width] = grid.shape_px;
  const [sizeY, sizeX] = grid.pixel_size_m;
  const here = pointer.y >= 0 && pointer.y < 1 && pointer.x >= 0 && pointer.x < 1 && pointer.y !== null;
  const where = here ? ` Pointer at y ${length(pointer.y * height * sizeY)}, x ${length(pointer.x * width * sizeX)}.` : "";
  const source = store.present.scan?.source.split("/").at(-1) ?? "";
  const name = source ? `${source}, ${label(shown.perspective).toLowerCase()}` : label(shown.perspective);
  setText("images-note", `${name}, up to model version ${shown.model_version}. ${height} × ${width} pixels of ${length(sizeX)}.` +
    `${pending || ` Network and reference (${truth}) share their colours.`}${residualNote(layer)}${substitute}${where}`);
}

function previewed(rows) {
  const row = retrieved(rows);
  return row?.kind === "preview" ? ` Preview: phase retrieval of the first ${row.frames} frames, while the scan goes on.` : "";
}

function build() {
  for (const channel of CHANNELS) {
    for (const part of VIEWS) {
      const figure = makeFigure(channel, part);
      figures.set(`${part.name}-${channel.name}`, figure);
      byId("figures").append(figure.node);
      watchDivider(figure.canvas);
      watchPointer(figure.canvas, () => figure.shape ?? [1, 1]);
    }
  }
}

function makeFigure(channel, part) {
  const canvas = element("canvas", { width: 1, height: 1, role: "img", ariaLabel: `${channel.title}, ${part.title}` });
  const scaleBar = element("div", { className: "scale-bar", hidden: true }, element("i"), element("span"));
  const [waiting, left, right] = ["waiting", "tag left", "tag right"].map((className) => element("span", { className }));
  const [value, lower, upper] = ["value", "lower", "upper"].map((className) => element("span", { className }));
  const bar = element("img", { alt: "", className: "colours" });
  const title = element("span", { textContent: part.title });
  const node = element(
    "figure", { dataset: { view: part.name, channel: channel.name } },
    element("figcaption", {}, element("span", {}, element("b", { textContent: channel.title }), " ", title), value),
    element("div", { className: "frame" }, canvas, left, right, scaleBar, waiting),
    element("div", { className: "colour-bar" }, lower, bar, upper),
  );
  return { node, canvas, scaleBar, title, waiting, left, right, value, bar, lower, upper, channel, view: part, picture: null, layer: null, shape: null };
}

function showFigure(figure, { rows, pass, grid, mode }) {
  const part = figure.view.name;
  if (mode !== "side" && part === "reference") return;
  const reference = retrieved(rows)?.kind ?? "reference";
  const kind = { network: pass, reference, difference: `difference_${pass}` }[part];
  const needed = { network: [pass], reference: [reference], difference: [pass, "reference"] }[part];
  if (part === "reference") figure.title.textContent = reference;
  figure.otherName = reference;
  const there = needed.every((name) => rows.some((row) => row.kind === name));
  figure.node.classList.toggle("empty", !there);
  figure.waiting.textContent = part === "network" ? waitingFor() : "waiting for the reference";
  figure.shape = there ? grid.shape_px : null;
  if (!there) {
    figure.picture = null;
    figure.scaleBar.hidden = true;
    figure.value.textContent = "";
    return;
  }
  const limits = part === "difference" ? {} : chosenLimits(figure.channel.name);
  figure.picture = loadPicture({ grid, rows, kind, channel: figure.channel.name, limits }) ?? figure.picture;
  figure.other = mode !== "side" && part === "network" && retrieved(rows)
    ? loadPicture({ grid, rows, kind: reference, channel: figure.channel.name, limits }) : null;
  figure.layer = part === "network" ? loadResidual({ grid, rows, pass }) : null;
  if (figure.picture) paint(figure, grid);
}

function waitingFor() {
  return store.present.weights.applied == null ? "waiting for the network’s first weights" : "waiting for frames";
}

function paint(figure, grid) {
  const { canvas, picture, other } = figure;
  const width = Math.round(canvas.clientWidth * devicePixelRatio);
  const height = Math.round(canvas.clientHeight * devicePixelRatio);
  if (!width || !height) return;
  Object.assign(canvas, { width, height });
  const place = placement(canvas, grid.shape_px);
  figure.tiles = tilesInView({ picture, canvas, place, shape: grid.shape_px });
  const draw = (shown) => (context) => drawPicture(context, shown, grid.shape_px, place);
  const tags = other ? drawCompared(canvas, draw(picture), draw(other), figure.otherName) : (draw(picture)(canvas.getContext("2d")), ["", ""]);
  [figure.left.textContent, figure.right.textContent] = tags;
  drawResidual(canvas.getContext("2d"), figure.layer, grid.shape_px, place);
  if (figure.view.name === "network") drawProbe(canvas.getContext("2d"), grid, place);
  drawScaleBar(figure.scaleBar, (grid.pixel_size_m[1] / place.scale) * devicePixelRatio, canvas.clientWidth);
  drawColours(figure);
  drawPointer(figure, grid, place);
}

function drawPicture(context, picture, shape, place) {
  drawBitmap(context, picture.bitmap, shape, place);
  const { scale, top, left } = place;
  for (const tile of tilesInView({ picture, canvas: context.canvas, place, shape })) {
    const [height, width] = [tile.bitmap.height * tile.step, tile.bitmap.width * tile.step];
    const corner = { scale, top: top + tile.top * scale, left: left + tile.left * scale };
    context.clearRect(corner.left, corner.top, width * scale, height * scale);
    drawBitmap(context, tile.bitmap, [height, width], corner);
  }
}

function drawBitmap(context, bitmap, [height, width], { scale, top, left }) {
  context.imageSmoothingEnabled = (scale * width) / bitmap.width < 1;
  context.drawImage(bitmap, left, top, width * scale, height * scale);
}

function drawColours(figure) {
  const { lower, upper, colourMap } = figure.picture;
  const source = `/api/colour_maps/${colourMap}.png`;
  if (!figure.bar.src.endsWith(source)) figure.bar.src = source;
  figure.lower.textContent = fixed(lower, 2);
  figure.upper.textContent = `${fixed(upper, 2)} ${figure.channel.unit}`.trim();
  if (figure.view.name === "network") showLimits(figure.channel.name, lower, upper);
}

function pixelUnder({ picture, tiles }, y, x, [height, width]) {
  const tile = tileOver(tiles, y, x);
  if (tile) return tile.pixelAt(Math.floor((y - tile.top) / tile.step), Math.floor((x - tile.left) / tile.step));
  return picture.pixelAt(Math.floor((y / height) * picture.bitmap.height), Math.floor((x / width) * picture.bitmap.width));
}

// A mark at the same place of all images, and what each shows there.
function drawPointer(figure, { shape_px: [height, width] }, { scale, top, left }) {
  const { colourMap, lower, upper } = figure.picture;
  const inside = pointer.y !== null && pointer.y >= 0 && pointer.y < 1 && pointer.x >= 0 && pointer.x < 1;
  const value = inside ? valueOf(pixelUnder(figure, pointer.y * height, pointer.x * width, [height, width]), colourMap, lower, upper) : undefined;
  const text = figure.view.name === "difference" ? signed(value, 2) : fixed(value, 2);
  figure.value.textContent = value === undefined ? "" : `${text} ${figure.channel.unit}`;
  if (!inside) return;
  const context = figure.canvas.getContext("2d");
  const [x, y, size] = [left + pointer.x * width * scale, top + pointer.y * height * scale, devicePixelRatio];
  for (const [colour, thick] of [["rgb(0 0 0 / 60%)", 3], ["#fff", 1]]) {
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 4 * dx * size, y + 4 * dy * size);
      context.lineTo(x + 11 * dx * size, y + 11 * dy * size);
    }
    [context.strokeStyle, context.lineWidth] = [colour, thick * size];
    context.stroke();
  }
}
