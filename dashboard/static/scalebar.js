// A bar of a round length on each image.

import { length } from "./format.js";

const SHARE = 0.3;

// `metresPerPixel` is for a pixel of the page, `width` that of the frame on the page.
export function drawScaleBar(node, metresPerPixel, width) {
  node.hidden = !(metresPerPixel > 0) || !Number.isFinite(metresPerPixel);
  if (node.hidden) return;
  const size = roundDown(width * SHARE * metresPerPixel);
  node.firstChild.style.width = `${size / metresPerPixel}px`;
  node.lastChild.textContent = length(size);
}

// 1, 2 or 5 times a power of ten.
function roundDown(size) {
  const power = 10 ** Math.floor(Math.log10(size));
  return power * [5, 2, 1].find((factor) => factor * power <= size * 1.0001);
}
