// Tiles of large images: what is in view at full resolution, drawn over the coarser picture of the whole.

import { fetchOnce } from "./pictures.js";
import { address } from "./store.js";

const TILE_PX = 256;
const LARGEST_ZOOM = 6;
const KEPT = 384;
const tiles = new Map();

// Return the tiles in view that were fetched, each with where it lies in the image; ask for the others.
export function tilesInView({ picture, canvas, place, shape }) {
  const zoom = Math.min(Math.max(0, Math.floor(-Math.log2(Math.max(place.scaleY, place.scaleX)))), LARGEST_ZOOM);
  const step = 2 ** zoom;
  if (step >= picture.stride) return [];
  const side = TILE_PX * step;
  const inView = (corner, extent, length, scale) => {
    const first = Math.max(0, Math.floor(-corner / scale / side));
    const last = Math.min(Math.ceil(length / side), Math.ceil((extent - corner) / scale / side));
    return Array.from({ length: Math.max(0, last - first) }, (_, index) => first + index);
  };
  const found = [];
  for (const y of inView(place.top, canvas.height, shape[0], place.scaleY)) {
    for (const x of inView(place.left, canvas.width, shape[1], place.scaleX)) {
      const tile = loadTile(picture, `${zoom}/${y}/${x}`);
      if (tile?.bitmap) found.push({ bitmap: tile.bitmap, pixelAt: tile.pixelAt, top: y * side, left: x * side, step });
    }
  }
  return found;
}

// The tile over a pixel of the image, if it was fetched.
export function tileOver(found, y, x) {
  return found.find(({ bitmap, top, left, step }) => y >= top && x >= left && y < top + bitmap.height * step && x < left + bitmap.width * step);
}

function loadTile({ base, version, lower, upper, colourMap }, name) {
  const path = address(`${base}/tile/${name}.png`, { lower, upper, colour_map: colourMap });
  return fetchOnce(tiles, path, version, KEPT);
}
