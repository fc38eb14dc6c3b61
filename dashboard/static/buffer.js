// The rehearsal buffer, rank by rank.

import { byId, element } from "./dom.js";
import { count, fixed, percent } from "./format.js";
import { store } from "./store.js";

export function drawBuffer() {
  const { buffer } = store.present;
  byId("buffer-card").hidden = !buffer.length;
  if (!buffer.length) return;
  const share = buffer[0].capacity / buffer.length;
  const size = buffer.reduce((sum, rank) => sum + rank.size, 0);
  const hidden = buffer.reduce((sum, rank) => sum + rank.hidden_fraction, 0) / buffer.length;
  byId("buffer").replaceChildren(
    element("dl", { className: "bars" }, ...buffer.flatMap((rank) => [
      element("dt", { textContent: `Rank ${rank.rank}` }),
      element("dd", {}, fill(rank.size / share), element("b", { textContent: count(rank.size) })),
    ])),
    element("p", { className: "note", textContent: `${count(size)} of ${count(buffer[0].capacity)} items; ${percent(hidden)} of its work is hidden ` +
      `(waited ${fixed(buffer[0].waited_ms, 1)} of ${fixed(buffer[0].background_ms, 1)} ms); transport ${buffer[0].transport}.` }),
  );
}

function fill(share) {
  const node = element("i", { dataset: { time: "fill" } });
  node.style.width = `${Math.min(100 * share, 100)}%`;
  return element("span", { className: "meter" }, node);
}
