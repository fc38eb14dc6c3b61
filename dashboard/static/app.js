// Connects to the run and draws what changed.

import { byId, setText, toggle } from "./dom.js";
import { drawCharts } from "./charts.js";
import { drawImages, step } from "./images.js";
import { drawClock, drawPanels } from "./panels.js";
import { forget, store, take } from "./store.js";

const SILENCE_MS = 15_000;
const RECONNECT_MS = 1_500;
const THEMES = ["system", "light", "dark"];

let changed = false;

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/ws`);
  let last = Date.now();
  const watch = setInterval(() => Date.now() - last > SILENCE_MS && socket.close(), 1_000);
  socket.onopen = forget;
  socket.onmessage = (message) => {
    last = Date.now();
    take(JSON.parse(message.data));
    byId("connection").hidden = true;
    changed = true;
  };
  socket.onclose = (event) => {
    clearInterval(watch);
    const full = event.code === 1013;
    setText("connection", full ? "Too many viewers; trying again." : "The dashboard does not answer; what you see is the last that it sent.");
    byId("connection").hidden = false;
    setTimeout(connect, RECONNECT_MS);
  };
}

function draw() {
  if (!store.present) return;
  drawClock();
  if (!changed || document.hidden) return;
  changed = false;
  drawPanels();
  drawImages();
  drawCharts();
}

function redraw() {
  changed = true;
  draw();
}

function showTheme() {
  const theme = localStorage.getItem("theme") ?? "system";
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  setText("theme", `Theme: ${theme}`);
  redraw();
}

function nextTheme() {
  const theme = localStorage.getItem("theme") ?? "system";
  localStorage.setItem("theme", THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
  showTheme();
}

const KEYS = { "[": () => step(-1), "]": () => step(1), p: () => toggle("pass"), c: () => toggle("channel"), t: nextTheme };

document.addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLSelectElement || event.ctrlKey || event.metaKey || event.altKey;
  if (typing || !KEYS[event.key]) return;
  KEYS[event.key]();
  redraw();
});
document.addEventListener("change", redraw);
document.addEventListener("visibilitychange", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("resize", redraw);
byId("previous").onclick = () => { step(-1); redraw(); };
byId("next").onclick = () => { step(1); redraw(); };
byId("theme").onclick = nextTheme;

showTheme();
connect();
setInterval(draw, 500);
