// The newest frame, on a logarithmic scale.

import { byId, setText } from "./dom.js";
import { amount, count } from "./format.js";
import { store } from "./store.js";

let shown = "";

export function drawFrame() {
  const { probe, live } = store.present;
  byId("frame-card").hidden = !probe || !live;
  if (!probe || !live) return;
  const source = `api/frame.png?v=${store.present.instance}-${probe.revision}`;
  const image = byId("frame");
  if (source !== shown && image.complete) {
    image.src = source;
    shown = source;
  }
  const binned = probe.binned_px > 1 ? `, ${probe.binned_px} × ${probe.binned_px} pixels summed` : "";
  setText("frame-note", `Perspective ${probe.perspective}, frame ${count(probe.index)}: brightest pixel ${amount(probe.brightest)} counts${binned}.`);
  setText("frame-upper", amount(probe.brightest));
}
