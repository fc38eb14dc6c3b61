// Network and reference over each other: with a divider, or in turns.

import { askRedraw, byId, chosen } from "./dom.js";

const BLINK_MS = 800;
const GRIP_PX = 24;

let turn = false;

export function comparison() {
  return chosen("compare");
}

// Draw one image over the other; each is drawn by a function of a canvas's context.
export function drawCompared(canvas, drawNetwork, drawReference, reference) {
  const context = canvas.getContext("2d");
  if (comparison() === "blink") {
    (turn ? drawReference : drawNetwork)(context);
    return turn ? ["", reference] : ["network", ""];
  }
  const at = Math.round(canvas.width * share());
  clipped(context, 0, at, canvas.height, drawNetwork);
  clipped(context, at, canvas.width, canvas.height, drawReference);
  drawDivider(context, at, canvas.height);
  return ["network", reference];
}

export function watchDivider(canvas) {
  let held = false;
  const near = (event) => {
    const box = canvas.getBoundingClientRect();
    return comparison() === "slider" && Math.abs(event.clientX - box.left - box.width * share()) < GRIP_PX;
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (!near(event)) return;
    held = true;
    canvas.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    canvas.classList.toggle("grip", held || near(event));
    if (!held) return;
    const box = canvas.getBoundingClientRect();
    byId("divider").value = String(Math.min(Math.max((100 * (event.clientX - box.left)) / box.width, 0), 100));
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { held = false; });
}

function share() {
  return Number(byId("divider").value) / 100;
}

function clipped(context, from, to, height, draw) {
  context.save();
  context.beginPath();
  context.rect(from, 0, to - from, height);
  context.clip();
  draw(context);
  context.restore();
}

function drawDivider(context, at, height) {
  const size = devicePixelRatio;
  context.fillStyle = "rgb(0 0 0 / 55%)";
  context.fillRect(at - 1.5 * size, 0, 3 * size, height);
  context.fillStyle = "#fff";
  context.fillRect(at - 0.75 * size, 0, 1.5 * size, height);
  context.beginPath();
  context.arc(at, height / 2, 7 * size, 0, 2 * Math.PI);
  context.fill();
}

byId("divider").addEventListener("input", askRedraw);
setInterval(() => {
  if (comparison() !== "blink" || document.hidden) return;
  turn = !turn;
  askRedraw();
}, BLINK_MS);
