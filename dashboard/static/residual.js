// The score without ground truth: a layer over the network's images, and what it says in words.

import { byId, element } from "./dom.js";
import { count, decimals, fixed } from "./format.js";
import { loadPicture } from "./pictures.js";
import { store } from "./store.js";

const OPACITY = 0.62;

// The map of a pass, if it is wanted and there is one.
export function loadResidual({ grid, rows, pass }) {
  const wanted = byId("show-residual").checked && rows.some((row) => row.kind === pass && row.residual);
  const layer = wanted ? loadPicture({ grid, rows, kind: `residual_${pass}`, channel: "phase", limits: {} }) : null;
  return layer?.bitmap ? layer : null;
}

export function drawResidual(context, layer, [height, width], { scaleY, scaleX, top, left }) {
  if (!layer) return;
  context.save();
  context.globalAlpha = OPACITY;
  context.imageSmoothingEnabled = false;
  context.drawImage(layer.bitmap, left, top, width * scaleX, height * scaleY);
  context.restore();
}

export function residualNote(layer) {
  if (!byId("show-residual").checked) return "";
  if (!layer) return " No residual is known of this image.";
  const digits = decimals(layer.lower, layer.upper) + 1;
  return ` Residual over the network: ${fixed(layer.lower, digits)} (dark) to ${fixed(layer.upper, digits)} (bright) of a frame’s energy is not explained.`;
}

// What is known of the newest frames without ground truth; nothing where no frame was scored.
export function residualBlock() {
  const { residual, calibration } = store.present;
  if (!residual) return [];
  const value = residual.newest ?? residual.residual;
  const scored = residual.scored === residual.frames ? "every frame" : `${count(residual.scored)} of ${count(residual.frames)} frames`;
  return [element(
    "div", { className: "quality", id: "residual" },
    element("h3", { textContent: `Without ground truth: perspective ${residual.perspective}, first pass` }),
    element("p", { className: "headline", dataset: { good: "unknown" } }, element("b", { textContent: fixed(100 * value, 1) }), " % of the newest frames’ energy not explained"),
    element("p", { className: "note", textContent: `${scored} scored. ${meaning(residual, calibration)}` }),
  )];
}

function meaning({ error_rad: error }, calibration) {
  if (!calibration) return "Not calibrated yet: what this says about the error is learned where there is a reference.";
  const { frames, images, correlation, spread } = calibration;
  const from = `rank correlation ${fixed(correlation, 2)} over ${count(frames)} frames of ${count(images)} ${images === 1 ? "image" : "images"}`;
  if (!calibration.usable) return `Not calibrated: too few frames with a reference, or it does not rank them (${from}).`;
  return `Phase error about ${fixed(error, 2)} rad, within a factor of ${fixed(spread, 1)} (${from}).`;
}
