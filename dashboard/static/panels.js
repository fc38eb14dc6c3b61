// The figures beside the images.

import { drawBuffer } from "./buffer.js";
import { byId, element, refill, row } from "./dom.js";
import { count, duration, milliseconds, rate } from "./format.js";
import { drawFrame } from "./frame.js";
import { drawLedger } from "./ledger.js";
import { drawParts } from "./parts.js";
import { pipeline, word } from "./pipeline.js";
import { drawQuality } from "./quality.js";
import { drawRegime } from "./regime.js";
import { drawStep } from "./steps.js";
import { store } from "./store.js";

const WARNINGS_SHOWN = 8;

let olderShown = false;

export function drawPanels() {
  for (const panel of [drawQuality, drawLedger, drawRates, drawFrame, drawStep, drawBuffer, drawRegime, drawParts, drawWarnings]) panel();
}

function drawRates() {
  const { frames, training, ground_truth: truth } = store.present;
  const inference = frames.inferred ? store.present.inference : null;
  const rows = [];
  if (inference) {
    rows.push(row(pipeline() === "scan" ? "Frames imaged" : "Images classified", rate(inference.frames_per_s)));
    rows.push(row(`${word("latency")}, median`, milliseconds(inference.frame_to_image_p50_ms)));
    rows.push(row(`${word("latency")}, 99th percentile`, milliseconds(inference.frame_to_image_p99_ms)));
  }
  if (training) rows.push(row("Samples trained", rate(training.samples_per_s)));
  if (truth.perspectives) rows.push(row("Phase retrieval", `${count(truth.perspectives)} × ${duration(truth.seconds / truth.perspectives)}`));
  byId("rates-card").hidden = !rows.length;
  byId("rates").replaceChildren(...rows);
}

function drawWarnings() {
  const warnings = [...store.warnings.values()].sort((a, b) => b.time_s - a.time_s);
  const [newest, older] = [warnings.slice(0, WARNINGS_SHOWN), warnings.slice(WARNINGS_SHOWN)];
  const notes = store.present.scan?.notes ?? [];
  byId("warnings-card").hidden = !newest.length && !notes.length;
  refill("warnings", [warnings, notes], () => [
    ...newest.map(warningLine),
    ...(older.length ? [element("li", {}, olderOnes(older))] : []),
    ...notes.map((note) => element("li", {}, element("b", { textContent: "scan" }), ` ${note}`)),
  ]);
}

function warningLine({ part, text, count: times }) {
  return element("li", {}, element("b", { textContent: part }), ` ${text}`, element("span", { className: "times", textContent: times > 1 ? ` × ${times}` : "" }));
}

function olderOnes(older) {
  const details = element("details", { open: olderShown }, element("summary", { textContent: `${count(older.length)} older` }), element("ul", {}, ...older.map(warningLine)));
  details.ontoggle = () => { olderShown = details.open; };
  return details;
}
