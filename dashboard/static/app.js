// Connects to the run, or reads an earlier one, and draws what changed.

import "./runs.js";
import { refusal } from "./answers.js";
import { drawAllCharts, drawCharts } from "./charts.js";
import { drawCommands } from "./commands.js";
import { byId, setText, toggle } from "./dom.js";
import { drawImages, leaf } from "./images.js";
import { drawClock, drawHeader } from "./header.js";
import { drawPanels } from "./panels.js";
import { drawPipeline } from "./pipeline.js";
import { drawTasks } from "./tasks.js";
import { fit, panBy, view, zoomBy } from "./view.js";
import { address, earlierRun, forget, store, take } from "./store.js";

const SILENCE_MS = 15_000;
const RECONNECT_MS = 1_500;
const THEMES = ["system", "light", "dark"];

let changed = false;
let waiting = false;

function connect() {
  const socket = new WebSocket(new URL("ws", document.baseURI.replace(/^http/, "ws")));
  let last = Date.now();
  const watch = setInterval(() => Date.now() - last > SILENCE_MS && socket.close(), 1_000);
  socket.onopen = forget;
  socket.onmessage = (message) => {
    last = Date.now();
    takeUpdate(JSON.parse(message.data));
    byId("connection").hidden = true;
  };
  socket.onclose = (event) => {
    clearInterval(watch);
    if (event.code === 1013) say("Too many viewers; trying again.");
    else if (hasEnded()) say("The run has ended and its page does not answer: what you see is its last state. `ptychoflow view` opens it again.", "over");
    else say("The dashboard does not answer; what you see is the last that it sent.");
    setTimeout(connect, RECONNECT_MS);
  };
}

async function loadEarlierRun() {
  try {
    const answer = await fetch(address("api/state"));
    if (!answer.ok) return sayUnopened(await refusal(answer));
    const update = await answer.json();
    // resumed since the address was made: it would stand still, and say that it runs
    if (update.present.live) location.replace("./");
    else takeUpdate(update);
  } catch (error) {
    console.info(`run not loaded: ${error}`);
    sayUnopened("the dashboard does not answer, or not with a run");
  }
}

function sayUnopened(reason) {
  setText("run", earlierRun);
  setText("run-state", "not opened");
  byId("run-state").dataset.state = "failed";
  say(`The run ${earlierRun} cannot be opened: ${reason}.`);
}

function hasEnded() {
  return store.present != null && (!store.present.live || store.present.state === "done");
}

function takeUpdate(update) {
  take(update);
  changed = true;
}

function say(text, kind = "bad") {
  setText("connection", text);
  byId("connection").dataset.kind = kind;
  byId("connection").hidden = false;
}

function draw() {
  if (!store.present) return;
  drawClock();
  if (!changed || document.hidden) return;
  changed = false;
  for (const part of [drawPipeline, drawHeader, drawTasks, drawImages, drawPanels, drawCommands, drawCharts]) part();
}

function redraw() {
  changed = true;
  draw();
}

// Asked for with every movement of the pointer: draw the images alone, once a picture of the screen.
function redrawImages() {
  if (!store.present || waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    drawImages();
  });
}

function showTheme() {
  const theme = localStorage.getItem("theme") ?? "system";
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  setText("theme", { system: "Auto", light: "Light", dark: "Dark" }[theme]);
  redraw();
}

function nextTheme() {
  const theme = localStorage.getItem("theme") ?? "system";
  localStorage.setItem("theme", THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
  showTheme();
}

const KEYS = {
  "[": () => leaf(-1), "]": () => leaf(1), r: () => toggle("pass"), v: () => toggle("compare"), c: () => toggle("channel"),
  x: () => toggle("across"), o: () => byId("show-path").click(), e: () => byId("show-residual").click(), t: nextTheme, "+": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: fit,
};

// Arrows move enlarged images; at full view they scroll the page.
const ARROWS = { ArrowUp: [-0.2, 0], ArrowDown: [0.2, 0], ArrowLeft: [0, -0.2], ArrowRight: [0, 0.2] };

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("select, input:not([type=radio], [type=checkbox])") || event.ctrlKey || event.metaKey || event.altKey;
  if (typing) return;
  if (ARROWS[event.key] && view.zoom > 1 && !event.target.matches("input")) {
    event.preventDefault();
    panBy(...ARROWS[event.key]);
  }
  if (!KEYS[event.key]) return;
  KEYS[event.key]();
  redraw();
});
for (const occasion of ["change", "visibilitychange"]) document.addEventListener(occasion, redraw);
document.addEventListener("redraw", redrawImages);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("resize", redraw);
addEventListener("scroll", drawCharts, { passive: true });
addEventListener("beforeprint", drawAllCharts);
byId("previous").onclick = () => { leaf(-1); redraw(); };
byId("next").onclick = () => { leaf(1); redraw(); };
byId("theme").onclick = nextTheme;

showTheme();
if (earlierRun) loadEarlierRun();
else connect();
setInterval(draw, 400);
