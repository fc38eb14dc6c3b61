// The figures beside the images.

import { drawBuffer } from "./buffer.js";
import { byId, element, refill, row } from "./dom.js";
import { count, duration, milliseconds, missing, rate } from "./format.js";
import { drawFrame } from "./frame.js";
import { drawLedger } from "./ledger.js";
import { drawParts } from "./parts.js";
import { drawQuality } from "./quality.js";
import { drawRegime } from "./regime.js";
import { drawStep } from "./steps.js";
import { store } from "./store.js";

const WARNINGS_SHOWN = 8;

export function drawPanels() {
  for (const panel of [drawQuality, drawLedger, drawRates, drawFrame, drawStep, drawBuffer, drawRegime, drawParts, drawWarnings]) panel();
}

function drawRates() {
  const { frames, training, ground_truth: truth } = store.present;
  const inference = frames.inferred ? store.present.inference : null;
  byId("rates").replaceChildren(
    row("Frames imaged", rate(inference?.frames_per_s)),
    row("Frame to image, median", milliseconds(inference?.frame_to_image_p50_ms)),
    row("Frame to image, 99 %", milliseconds(inference?.frame_to_image_p99_ms)),
    row("Samples trained", rate(training?.samples_per_s)),
    row("Phase retrieval", truth.perspectives ? `${count(truth.perspectives)} × ${duration(truth.seconds / truth.perspectives)}` : missing),
  );
}

function drawWarnings() {
  const newest = [...store.warnings.values()].sort((a, b) => b.time_s - a.time_s).slice(0, WARNINGS_SHOWN);
  byId("warnings-card").hidden = !newest.length;
  refill("warnings", newest, () => newest.map((warning) => element(
    "li", {}, element("b", { textContent: warning.part }), ` ${warning.text}`,
    element("span", { className: "times", textContent: warning.count > 1 ? ` × ${warning.count}` : "" }),
  )));
}
