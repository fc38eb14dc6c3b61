// Pictures fetched from the server, each once.

import { askRedraw } from "./dom.js";
import { address, store } from "./store.js";

const LARGEST_SIDE_PX = 2048;
const KEPT = 32;
const pictures = new Map();
const loading = new Set();

// Return a picture as it was fetched last; ask for the newest if that is another one.
export function loadPicture({ grid, rows, kind, channel, limits }) {
  const stride = Math.ceil(Math.max(...grid.shape_px) / LARGEST_SIDE_PX);
  const path = address(`/api/mosaics/${grid.perspective}/${kind}/${channel}.png`, { ...limits, ...(stride > 1 && { stride }) });
  const version = `${store.present.instance}-${rows.map((row) => row.revision).join("-")}`;
  const last = pictures.get(path);
  if (last?.version !== version && !loading.has(path)) load(path, version);
  return last;
}

async function load(path, version) {
  loading.add(path);
  try {
    const answer = await fetch(path);
    if (!answer.ok) return;
    const bitmap = await createImageBitmap(await answer.blob());
    const [lower, upper] = ["X-Lower", "X-Upper"].map((name) => Number(answer.headers.get(name)));
    pictures.delete(path);
    pictures.set(path, { version, bitmap, lower, upper, colourMap: answer.headers.get("X-Colour-Map"), pixelAt: (y, x) => pixelAt(bitmap, y, x) });
    if (pictures.size > KEPT) pictures.delete(pictures.keys().next().value);
    askRedraw();
  } catch (error) {
    console.info(`picture not loaded: ${error}`);
  } finally {
    loading.delete(path);
  }
}

const single = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

function pixelAt(bitmap, y, x) {
  single.clearRect(0, 0, 1, 1);
  single.drawImage(bitmap, x, y, 1, 1, 0, 0, 1, 1);
  return single.getImageData(0, 0, 1, 1).data;
}
