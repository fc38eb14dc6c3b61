// Where the probe has been and where it is, drawn over an image.

import { askRedraw, byId } from "./dom.js";
import { address, store } from "./store.js";

const NPY_HEADER_AT = 10;
const paths = new Map();

export function drawProbe(context, grid, { scale, top, left }) {
  if (!byId("show-path").checked) return;
  const positions = pathOf(grid.perspective);
  if (!positions) return;
  const size = devicePixelRatio;
  const now = store.present.probe;
  const here = now?.perspective === grid.perspective && store.present.live;
  const taken = here ? now.index + 1 : positions.length / 2;
  const at = (index) => [left + (positions[2 * index + 1] - grid.origin_px[1] + 0.5) * scale, top + (positions[2 * index] - grid.origin_px[0] + 0.5) * scale];
  context.save();
  context.lineJoin = "round";
  stroke(context, taken, at, "rgb(0 0 0 / 45%)", 2.4 * size);
  stroke(context, taken, at, "rgb(255 255 255 / 80%)", 1 * size);
  if (here) drawSpot(context, at(Math.min(now.index, positions.length / 2 - 1)), size);
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

function pathOf(perspective) {
  if (!store.present.paths.includes(perspective)) return null;
  const key = `${store.present.instance}-${perspective}`;
  if (!paths.has(key)) load(key, perspective);
  return paths.get(key);
}

async function load(key, perspective) {
  paths.set(key, null);
  const answer = await fetch(address(`/api/positions/${perspective}.npy`));
  if (!answer.ok) return;
  const file = await answer.arrayBuffer();
  const start = NPY_HEADER_AT + new DataView(file).getUint16(8, true);
  paths.set(key, new Float32Array(file.slice(start)));
  askRedraw();
}
