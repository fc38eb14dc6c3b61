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
  const base = `/api/mosaics/${grid.perspective}/${kind}/${channel}`;
  const path = address(`${base}.png`, { ...limits, ...(stride > 1 && { stride }) });
  const version = `${store.present.instance}-${rows.map((row) => row.revision).join("-")}`;
  const last = fetchOnce(pictures, path, version, KEPT);
  return last && Object.assign(last, { base, stride });
}

// Return what a cache holds of an address; fetch it if that is not of this version.
export function fetchOnce(cache, path, version, kept) {
  const last = cache.get(path);
  if (last?.version !== version && !loading.has(path)) load(cache, path, version, kept);
  return last;
}

async function load(cache, path, version, kept) {
  loading.add(path);
  try {
    const answer = await fetch(path);
    if (!answer.ok) return;
    const bitmap = await createImageBitmap(await answer.blob());
    const [lower, upper] = ["X-Lower", "X-Upper"].map((name) => Number(answer.headers.get(name)));
    cache.delete(path);
    cache.set(path, { version, bitmap, lower, upper, colourMap: answer.headers.get("X-Colour-Map"), pixelAt: (y, x) => pixelAt(bitmap, y, x) });
    if (cache.size > kept) cache.delete(cache.keys().next().value);
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
