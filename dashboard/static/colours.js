// Colour limits that the viewer chose, and values read back from colours.

import { askRedraw, byId } from "./dom.js";
import { decimals } from "./format.js";

const COLOURS = 255;

const palettes = new Map();

export function chosenLimits(channel) {
  const [lower, upper] = ["lower", "upper"].map((end) => byId(`${channel}-${end}`).value);
  const map = byId(`${channel}-map`).value;
  return { ...(lower !== "" && { lower }), ...(upper !== "" && { upper }), ...(map && { colour_map: map }) };
}

// Show what limits are in use where the viewer chose none.
export function showLimits(channel, lower, upper) {
  const digits = decimals(lower, upper);
  for (const [end, limit] of [["lower", lower], ["upper", upper]]) {
    Object.assign(byId(`${channel}-${end}`), { placeholder: limit.toFixed(digits + 1), step: (5 / 10 ** digits).toFixed(digits) });
  }
}

// The value that a pixel of a picture shows; undefined where it is transparent or its colours are not known yet. Of the
// first and the last colour only a bound is known: they stand for whatever lies beyond the limits, too.
export function valueOf([red, green, blue, alpha], colourMap, lower, upper) {
  const palette = palettes.get(colourMap);
  if (!palette) loadPalette(colourMap);
  const index = alpha ? palette?.get((red << 16) | (green << 8) | blue) : undefined;
  if (index === undefined) return undefined;
  const at = (place) => lower + (place / COLOURS) * (upper - lower);
  if (index === 0) return { bound: "≤ ", value: at(1) };
  if (index === COLOURS - 1) return { bound: "≥ ", value: at(index) };
  return { bound: "", value: at(index + 0.5) };
}

async function loadPalette(colourMap) {
  palettes.set(colourMap, null);
  const answer = await fetch(`api/colour_maps/${colourMap}.png`);
  const bitmap = await createImageBitmap(await answer.blob());
  const canvas = new OffscreenCanvas(bitmap.width, 1);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, 1);
  const palette = new Map();
  for (let index = 0; index < bitmap.width; index++) {
    palette.set((data[4 * index] << 16) | (data[4 * index + 1] << 8) | data[4 * index + 2], index);
  }
  palettes.set(colourMap, palette);
}

byId("automatic").onclick = () => {
  for (const input of document.querySelectorAll("#contrast input, #contrast select")) input.value = "";
  askRedraw();
};
