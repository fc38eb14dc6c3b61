// The stitched images: network, reference and difference, for phase and amplitude.

import { comparison, drawCompared, watchDivider } from "./compare.js";
import { chosenLimits, showLimits, valueOf } from "./colours.js";
import { askRedraw, byId, chosen, element, setText } from "./dom.js";
import { decimals, fixed, length, signed } from "./format.js";
import { loadPicture } from "./pictures.js";
import { drawProbe, pathNote } from "./probe.js";
import { drawResidual, loadResidual, residualNote } from "./residual.js";
import { drawSaving } from "./saving.js";
import { drawScaleBar } from "./scalebar.js";
import { address, isOver, store } from "./store.js";
import { tileOver, tilesInView } from "./tiles.js";
import { placement, pointer, tallness, view, watchPointer } from "./view.js";

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
const ASK_AGAIN_MS = 2_000;
const BLANK = { shape_px: [1, 1], pixel_size_m: [1, 1] };
const GROUND_TRUTHS = { ptychi: "phase retrieval", tike: "phase retrieval", recorded: "recorded object", simulated: "true specimen" };

const figures = new Map();
const archived = new Map();
const options = new Map();
const pictured = new Set(); // perspectives that have images, in the run's folder too
let picturedOf = null; // the start of the dashboard that told of them

export function drawImages() {
  if (!figures.size) build();
  notePictured();
  drawChooser();
  const perspective = chosenPerspective();
  const rows = rowsOf(perspective);
  const pass = chosenPass(rows);
  const grid = gridOf(rows, pass);
  const mode = retrieved(rows) ? comparison() : "alone";
  byId("figures").dataset.compare = mode;
  byId("figures").classList.toggle("enlarged", view.zoom > 1);
  byId("divider").hidden = mode !== "slider";
  const [height, width] = (grid ?? BLANK).shape_px;
  byId("figures").style.setProperty("--aspect", String(width / (height * tallness(grid ?? BLANK))));
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
  return has(rows, pass) ? pass : "first_pass";
}

// Of each kind the image at hand, or else the one in the run's folder.
function rowsOf(perspective) {
  const atHand = store.present.mosaics.filter((row) => row.perspective === perspective);
  if (!Number.isFinite(perspective) || (has(atHand, "first_pass") && has(atHand, "reference"))) return atHand;
  const key = `${store.present.instance}-${perspective}`;
  if (!archived.has(key)) archived.set(key, { rows: [], of: null, askedAt: -Infinity });
  const found = archived.get(key);
  const rows = [...atHand, ...found.rows.filter((row) => !has(atHand, row.kind))];
  const told = store.perspectives.get(perspective);
  if (Date.now() - found.askedAt > ASK_AGAIN_MS && (found.of !== told || isIncomplete(rows, told))) askArchive(found, perspective, told);
  return rows;
}

function has(rows, kind) {
  return rows.some((row) => row.kind === kind);
}

// Whether there are images beyond these, by what is told of the perspective.
function isIncomplete(rows, told) {
  return !(has(rows, "first_pass") || has(rows, "refreshed")) || (isCompared(told) && !has(rows, "reference"));
}

function isCompared(told) {
  return Boolean(told?.first_pass ?? told?.refreshed);
}

function isImaged(told) {
  return isCompared(told) || (told.residual_first_pass ?? told.residual_refreshed) != null;
}

// `told` is what was told of the perspective when its images were asked for: when that changes, they may have too.
async function askArchive(found, perspective, told) {
  found.askedAt = Infinity;
  try {
    const answer = await fetch(address(`api/mosaics/${perspective}`));
    if (answer.ok) Object.assign(found, { rows: await answer.json(), of: told });
  } catch (error) {
    console.info(`images not listed: ${error}`);
  }
  found.askedAt = Date.now();
  askRedraw();
}

function gridOf(rows, pass) {
  return rows.find((row) => row.kind === pass) ?? retrieved(rows);
}

// The reference, or what phase retrieval shows so far of a perspective that is still being scanned.
function retrieved(rows) {
  return rows.find((row) => row.kind === "reference") ?? rows.find((row) => row.kind === "preview");
}

// Images at hand leave room for newer ones, and stay in the run's folder.
function notePictured() {
  const { instance, mosaics } = store.present;
  if (picturedOf !== instance) {
    picturedOf = instance;
    pictured.clear();
    listFolder(instance);
  }
  for (const row of mosaics) pictured.add(row.perspective);
}

async function listFolder(instance) {
  const answer = await fetch(address("api/mosaics")).catch(() => null);
  const listed = answer?.ok ? await answer.json().catch(() => null) : null;
  if (picturedOf !== instance) return;
  if (listed === null) return void setTimeout(() => picturedOf === instance && listFolder(instance), ASK_AGAIN_MS);
  for (const perspective of listed) pictured.add(perspective);
  askRedraw();
}

function known() {
  return [...new Set([...pictured, ...store.perspectives.keys()])].sort((a, b) => b - a);
}

function newest() {
  const imaged = [...pictured, ...perspectivesThat(isImaged)];
  return Math.max(...(imaged.length ? imaged : store.perspectives.keys()));
}

// Ground truth comes later than frames: the newest perspective has usually no reference yet.
function newestCompared() {
  const atHand = store.present.mosaics.filter((row) => row.kind === "reference").map((row) => row.perspective);
  const compared = [...atHand, ...perspectivesThat(isCompared)];
  return compared.length ? Math.max(...compared) : newest();
}

function perspectivesThat(are) {
  return [...store.perspectives.values()].filter(are).map((row) => row.perspective);
}

function drawChooser() {
  const select = byId("perspective");
  const wanted = known();
  if (wanted.join() !== [...options.keys()].join()) {
    const { value } = select;
    options.clear();
    for (const index of wanted) options.set(index, element("option", { value: String(index) }));
    select.replaceChildren(...[...select.options].slice(0, FIXED_CHOICES), ...options.values());
    select.value = value;
    if (select.selectedIndex < 0) select.value = "newest";
  }
  for (const [index, option] of options) {
    const text = label(index);
    if (option.textContent !== text) option.textContent = text;
  }
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
    setText("images-note", `${isOver() ? "No frame of this was imaged." : "Images appear as soon as the edge has weights and frames."}${previewed(rows)}`);
    return;
  }
  const substitute = pass === chosen("pass") ? "" : " Not imaged again yet: this is the first pass.";
  const pending = has(rows, "reference") ? "" : `${previewed(rows)} ${isOver() ? "There is no reference: this perspective has no ground truth." : "The reference comes with the ground truth of this perspective."}`;
  const truth = GROUND_TRUTHS[store.present.scan?.ground_truth] ?? "ground truth";
  const [height, width] = grid.shape_px;
  const [sizeY, sizeX] = grid.pixel_size_m;
  const here = pointer.y >= 0 && pointer.y < 1 && pointer.x >= 0 && pointer.x < 1 && pointer.y !== null;
  const where = here ? ` Pointer at y ${length(pointer.y * height * sizeY)}, x ${length(pointer.x * width * sizeX)}.` : "";
  const source = store.present.scan?.source.split("/").at(-1) ?? "";
  const name = source ? `${source}, ${label(shown.perspective).toLowerCase()}` : label(shown.perspective);
  const size = sizeY === sizeX ? length(sizeX) : `${length(sizeY)} × ${length(sizeX)}`;
  setText("images-note", `${name}, up to model version ${shown.model_version}. ${height} × ${width} pixels of ${size}.` +
    `${pending || ` Network and reference (${truth}) share their colours.`}${residualNote(layer)}${pathNote(shown.perspective)}${substitute}${where}`);
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
      watchPointer(figure.canvas, () => figure.grid ?? BLANK);
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
  return { node, canvas, scaleBar, title, waiting, left, right, value, bar, lower, upper, channel, view: part, picture: null, layer: null, grid: null };
}

function showFigure(figure, { rows, pass, grid, mode }) {
  const part = figure.view.name;
  if (mode !== "side" && part === "reference") return;
  const reference = retrieved(rows)?.kind ?? "reference";
  const kind = { network: pass, reference, difference: `difference_${pass}` }[part];
  const needed = { network: [pass], reference: [reference], difference: [pass, "reference"] }[part];
  if (part === "reference") figure.title.textContent = reference;
  figure.otherName = reference;
  const there = needed.every((name) => has(rows, name));
  figure.grid = there ? grid : null;
  const limits = part === "difference" ? {} : chosenLimits(figure.channel.name);
  const wanted = { grid, rows, channel: figure.channel.name, limits };
  figure.picture = there ? loadPicture({ ...wanted, kind, before: figure.picture }) : null;
  const compared = there && mode !== "side" && part === "network" && retrieved(rows);
  figure.other = compared ? loadPicture({ ...wanted, kind: reference, before: figure.other }) : null;
  figure.layer = there && part === "network" ? loadResidual({ grid, rows, pass }) : null;
  const shown = Boolean(figure.picture?.bitmap);
  figure.node.classList.toggle("empty", !shown);
  if (shown) paint(figure, grid);
  else drawNothing(figure, there ? figure.picture?.refused ?? "loading" : waitingFor(part));
}

function drawNothing(figure, reason) {
  figure.waiting.textContent = reason;
  figure.scaleBar.hidden = true;
  for (const text of [figure.value, figure.left, figure.right]) text.textContent = "";
}

function waitingFor(part) {
  if (isOver()) return part === "network" ? "no image" : "no reference";
  if (part !== "network") return "waiting for the reference";
  return store.present.weights.applied == null ? "waiting for the network’s first weights" : "waiting for frames";
}

function paint(figure, grid) {
  const { canvas, picture, other } = figure;
  const width = Math.round(canvas.clientWidth * devicePixelRatio);
  const height = Math.round(canvas.clientHeight * devicePixelRatio);
  if (!width || !height) return;
  Object.assign(canvas, { width, height });
  const place = placement(canvas, grid);
  figure.tiles = tilesInView({ picture, canvas, place, shape: grid.shape_px });
  const draw = (shown) => (context) => drawPicture(context, shown, grid.shape_px, place);
  const tags = other?.bitmap ? drawCompared(canvas, draw(picture), draw(other), figure.otherName) : (draw(picture)(canvas.getContext("2d")), ["", ""]);
  [figure.left.textContent, figure.right.textContent] = tags;
  drawResidual(canvas.getContext("2d"), figure.layer, grid.shape_px, place);
  if (figure.view.name === "network") drawProbe(canvas.getContext("2d"), grid, place);
  drawScaleBar(figure.scaleBar, (grid.pixel_size_m[1] / place.scaleX) * devicePixelRatio, canvas.clientWidth);
  drawColours(figure);
  drawPointer(figure, grid, place);
}

function drawPicture(context, picture, shape, place) {
  drawBitmap(context, picture.bitmap, shape, place);
  const { scaleY, scaleX, top, left } = place;
  for (const tile of tilesInView({ picture, canvas: context.canvas, place, shape })) {
    const [height, width] = [tile.bitmap.height * tile.step, tile.bitmap.width * tile.step];
    const corner = { scaleY, scaleX, top: top + tile.top * scaleY, left: left + tile.left * scaleX };
    context.clearRect(corner.left, corner.top, width * scaleX, height * scaleY);
    drawBitmap(context, tile.bitmap, [height, width], corner);
  }
}

function drawBitmap(context, bitmap, [height, width], { scaleY, scaleX, top, left }) {
  context.imageSmoothingEnabled = (Math.min(scaleY, scaleX) * width) / bitmap.width < 1;
  context.drawImage(bitmap, left, top, width * scaleX, height * scaleY);
}

function drawColours(figure) {
  const { lower, upper, colourMap } = figure.picture;
  const source = `api/colour_maps/${colourMap}.png`;
  if (!figure.bar.src.endsWith(source)) figure.bar.src = source;
  const digits = decimals(lower, upper);
  figure.lower.textContent = fixed(lower, digits);
  figure.upper.textContent = `${fixed(upper, digits)} ${figure.channel.unit}`.trim();
  if (figure.view.name === "network") showLimits(figure.channel.name, lower, upper);
}

function pixelUnder({ picture, tiles }, y, x, [height, width]) {
  const tile = tileOver(tiles, y, x);
  if (tile) return tile.pixelAt(Math.floor((y - tile.top) / tile.step), Math.floor((x - tile.left) / tile.step));
  return picture.pixelAt(Math.floor((y / height) * picture.bitmap.height), Math.floor((x / width) * picture.bitmap.width));
}

// A mark at the same place of all images, and what each shows there.
function drawPointer(figure, { shape_px: [height, width] }, { scaleY, scaleX, top, left }) {
  const { colourMap, lower, upper } = figure.picture;
  const inside = pointer.y !== null && pointer.y >= 0 && pointer.y < 1 && pointer.x >= 0 && pointer.x < 1;
  const under = inside ? valueOf(pixelUnder(figure, pointer.y * height, pointer.x * width, [height, width]), colourMap, lower, upper) : undefined;
  const written = figure.view.name === "difference" ? signed : fixed;
  figure.value.textContent = under === undefined ? "" : `${under.bound}${written(under.value, decimals(lower, upper))} ${figure.channel.unit}`.trim();
  if (!inside) return;
  const context = figure.canvas.getContext("2d");
  const [x, y, size] = [left + pointer.x * width * scaleX, top + pointer.y * height * scaleY, devicePixelRatio];
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
