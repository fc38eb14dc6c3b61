// The health of every part, and what it said last.

import { element, refill } from "./dom.js";
import { drawClock } from "./header.js";
import { store } from "./store.js";

const EXPECTED = ["acquisition", "trainer", "edge"];
const opened = new Set();

export function drawParts() {
  const known = new Map(store.present.parts.map((part) => [part.part, part]));
  for (const part of EXPECTED) {
    if (!known.has(part)) known.set(part, { part, state: "starting", text: "not heard of yet", last_heard_s: null, words: [] });
  }
  const parts = [...known.values()];
  refill("parts", parts.map((one) => ({ ...one, last_heard_s: null })), () => parts.map(part));
  for (const one of parts) for (const time of document.querySelectorAll(`[data-part="${one.part}"]`)) time.dataset.heard = String(one.last_heard_s ?? 0);
  drawClock();
}

function part({ part: name, state, text, last_heard_s: heard, words }) {
  const line = element("summary", {},
    element("span", { className: "dot", dataset: { state }, textContent: name }),
    EXPECTED.includes(name) ? element("time", { dataset: { part: name, heard: String(heard ?? 0), state: heard == null ? "silent" : state } }) : "",
    element("span", { className: "said", textContent: text }));
  const earlier = words.slice(0, -1).reverse().map((word) => element("li", {},
    element("time", { textContent: new Date(1000 * word.time_s).toLocaleTimeString() }), ` ${word.text || word.state}`));
  const details = element("details", { open: opened.has(name) }, line, element("ol", {}, ...earlier));
  details.ontoggle = () => (details.open ? opened.add(name) : opened.delete(name));
  return element("li", {}, details);
}
