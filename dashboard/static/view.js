// What part of the images is in view: the same for all of them, so that they stay pixel by pixel beside each other.

import { askRedraw } from "./dom.js";

const MAX_ZOOM = 40;

// The middle of the view as a share of the image, and how many times larger than to fit.
export const view = { y: 0.5, x: 0.5, zoom: 1 };
export const pointer = { y: null, x: null };

export function fit() {
  Object.assign(view, { y: 0.5, x: 0.5, zoom: 1 });
  askRedraw();
}

// Enlarge around a point of the image, given as a share of it.
export function zoomBy(factor, at = { y: view.y, x: view.x }) {
  const zoom = Math.min(Math.max(view.zoom * factor, 1), MAX_ZOOM);
  const kept = view.zoom / zoom;
  view.y = at.y + (view.y - at.y) * kept;
  view.x = at.x + (view.x - at.x) * kept;
  view.zoom = zoom;
  hold();
  askRedraw();
}

// Move the view by a share of itself; at full view there is nowhere to go.
export function panBy(down, right) {
  view.y += down / view.zoom;
  view.x += right / view.zoom;
  hold();
  askRedraw();
}

// How many times higher than wide a pixel of an image is.
export function tallness({ pixel_size_m: [sizeY, sizeX] }) {
  return sizeY > 0 && sizeX > 0 ? sizeY / sizeX : 1;
}

// Where an image lies on a canvas, a metre being as long in both directions: height and width of a pixel, and the canvas
// coordinates of its corner.
export function placement(canvas, grid) {
  const [height, width] = grid.shape_px;
  const scaleX = Math.min(canvas.width / width, canvas.height / (height * tallness(grid))) * view.zoom;
  const scaleY = scaleX * tallness(grid);
  return { scaleY, scaleX, top: canvas.height / 2 - view.y * height * scaleY, left: canvas.width / 2 - view.x * width * scaleX };
}

export function watchPointer(canvas, gridOf) {
  const held = new Map();
  const shareAt = (event) => {
    const box = canvas.getBoundingClientRect();
    const ratio = canvas.width / box.width;
    const grid = gridOf();
    const [height, width] = grid.shape_px;
    const { scaleY, scaleX, top, left } = placement(canvas, grid);
    return { y: ((event.clientY - box.top) * ratio - top) / (scaleY * height), x: ((event.clientX - box.left) * ratio - left) / (scaleX * width) };
  };
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && view.zoom === 1) return;
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / 300), shareAt(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoomBy(2, shareAt(event)));
  canvas.addEventListener("pointerdown", (event) => {
    if (event.defaultPrevented) return;
    held.set(event.pointerId, { ...shareAt(event), event });
    if (view.zoom > 1 || held.size > 1) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = shareAt(event);
    if (held.has(event.pointerId)) drag(held, event, at, shareAt);
    Object.assign(pointer, at);
    askRedraw();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => held.delete(event.pointerId));
  canvas.addEventListener("pointerleave", (event) => {
    held.delete(event.pointerId);
    Object.assign(pointer, { y: null, x: null });
    askRedraw();
  });
}

// One finger moves the image, two fingers enlarge it.
function drag(held, event, at, shareAt) {
  const grip = held.get(event.pointerId);
  if (held.size === 2) {
    const other = [...held.entries()].find(([id]) => id !== event.pointerId)[1].event;
    const distance = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    zoomBy(distance(event) / Math.max(distance(grip.event), 1), shareAt(other));
  } else if (view.zoom > 1) {
    view.y -= at.y - grip.y;
    view.x -= at.x - grip.x;
    hold();
  }
  held.set(event.pointerId, { ...shareAt(event), event });
}

// Keep the view inside the image.
function hold() {
  const reach = 0.5 / view.zoom;
  for (const axis of ["y", "x"]) view[axis] = Math.min(Math.max(view[axis], reach), 1 - reach);
}
