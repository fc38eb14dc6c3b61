// Pictures fetched from the server, each once.

import { refusal } from "./answers.js";
import { askRedraw } from "./dom.js";
import { address, store } from "./store.js";

const LARGEST_SIDE_PX = 2048;
const KEPT = 32;
const ASK_AGAIN_MS = 2_000;
const NOT_AS_ASKED = 422; // refused whenever it is asked for like this
const pictures = new Map();
const loading = new Set();

// Return a picture as it was fetched last, or else `before`, if that shows the same; ask for the newest if that is
// another one. One that was refused has no bitmap, and says why.
export function loadPicture({ grid, rows, kind, channel, limits, before = null }) {
  const stride = Math.ceil(Math.max(...grid.shape_px) / LARGEST_SIDE_PX);
  const base = `api/mosaics/${grid.perspective}/${kind}/${channel}`;
  const path = address(`${base}.png`, { ...limits, ...(stride > 1 && { stride }) });
  const last = fetchOnce(pictures, path, rows.map((row) => row.revision).join("-"), KEPT);
  if (last) return Object.assign(last, { base, stride });
  return before?.base === base && before.instance === store.present.instance ? before : null;
}

// Return what a cache holds of an address, of this start of the dashboard; fetch it if that is not of this version.
export function fetchOnce(cache, path, version, kept) {
  const { instance } = store.present;
  const last = cache.get(path);
  const known = last?.instance === instance ? last : undefined;
  const wanted = known?.version !== version || Date.now() > known.askAgain;
  if (wanted && !loading.has(path)) load(cache, path, { instance, version }, kept);
  return known;
}

async function load(cache, path, of, kept) {
  loading.add(path);
  try {
    const answer = await fetch(path);
    const found = answer.ok ? await pictureIn(answer) : await refusedIn(answer);
    cache.delete(path);
    cache.set(path, { ...of, ...found });
    if (cache.size > kept) cache.delete(cache.keys().next().value);
    askRedraw();
  } catch (error) {
    console.info(`picture not loaded: ${error}`);
  } finally {
    loading.delete(path);
  }
}

async function pictureIn(answer) {
  const bitmap = await createImageBitmap(await answer.blob());
  const [lower, upper] = ["X-Lower", "X-Upper"].map((name) => Number(answer.headers.get(name)));
  return { bitmap, lower, upper, colourMap: answer.headers.get("X-Colour-Map"), pixelAt: (y, x) => pixelAt(bitmap, y, x) };
}

async function refusedIn(answer) {
  const askAgain = answer.status === NOT_AS_ASKED ? Infinity : Date.now() + ASK_AGAIN_MS;
  return { bitmap: null, refused: await refusal(answer), askAgain };
}

const single = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

function pixelAt(bitmap, y, x) {
  single.clearRect(0, 0, 1, 1);
  single.drawImage(bitmap, x, y, 1, 1, 0, 0, 1, 1);
  return single.getImageData(0, 0, 1, 1).data;
}
