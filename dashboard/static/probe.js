// Where the probe has been and where it is, drawn over an image.

import { askRedraw, byId } from "./dom.js";
import { address, store } from "./store.js";

const NPY_HEADER_AT = 10;
const ASK_AGAIN_MS = 2_000;
const paths = new Map();
const asked = new Map(); // how long each path was when it was asked for: it may grow

export function drawProbe(context, grid, { scaleY, scaleX, top, left }) {
  if (!byId("show-path").checked) return;
  const positions = pathOf(grid.perspective);
  if (!positions) return;
  const size = devicePixelRatio;
  const now = store.present.probe;
  const here = now?.perspective === grid.perspective && store.present.live;
  const known = positions.length / 2;
  const taken = here ? Math.min(now.index + 1, known) : known;
  const at = (index) => [left + (positions[2 * index + 1] - grid.origin_px[1] + 0.5) * scaleX, top + (positions[2 * index] - grid.origin_px[0] + 0.5) * scaleY];
  context.save();
  context.lineJoin = "round";
  stroke(context, taken, at, "rgb(0 0 0 / 45%)", 2.4 * size);
  stroke(context, taken, at, "rgb(255 255 255 / 80%)", 1 * size);
  if (here && taken) drawSpot(context, at(taken - 1), size);
  context.restore();
}

function stroke(context, taken, at, colour, width) {
  context.beginPath();
  for (let index = 0; index < taken; index++) context.lineTo(...at(index));
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

function drawSpot(context, [x, y], size) {
  for (const [radius, colour, width] of [[8, "rgb(0 0 0 / 60%)", 4], [8, "#ff4d6d", 2.2]]) {
    context.beginPath();
    context.arc(x, y, radius * size, 0, 2 * Math.PI);
    context.strokeStyle = colour;
    context.lineWidth = width * size;
    context.stroke();
  }
}

export function pathNote(perspective) {
  const known = store.present.paths[perspective] > 0;
  return byId("show-path").checked && !known ? " The scan path of this perspective is not at hand." : "";
}

function pathOf(perspective) {
  const length = store.present.paths[perspective];
  if (length === undefined) return null;
  const key = `${store.present.instance}-${perspective}`;
  if (asked.get(key) !== length) load(key, perspective, length);
  return paths.get(key);
}

async function load(key, perspective, length) {
  asked.set(key, length);
  const answer = await fetch(address(`api/positions/${perspective}.npy`)).catch(() => null);
  if (!answer?.ok) {
    setTimeout(() => asked.delete(key), ASK_AGAIN_MS);
    return;
  }
  const file = await answer.arrayBuffer();
  const start = NPY_HEADER_AT + new DataView(file).getUint16(8, true);
  paths.set(key, new Float32Array(file.slice(start)));
  askRedraw();
}
