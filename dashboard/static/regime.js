// The regime and how it came about.

import { byId, element } from "./dom.js";
import { count, duration, fixed } from "./format.js";
import { store } from "./store.js";

const MEANS = {
  learning: "Perspectives get ground truth and are learned from.",
  monitoring: "The network is good enough: few perspectives get ground truth.",
};

export function drawRegime() {
  const { regime, ground_truth: truth } = store.present;
  const children = [element("p", { className: "regime" }, element("b", { textContent: regime.name }), ` ${MEANS[regime.name]}`)];
  if (regime.automatic) children.push(element("p", { className: "note", textContent: `Good enough: first pass ${thresholds(regime)}.` }));
  if (truth.skipped) {
    const saved = truth.perspectives ? `, about ${duration((truth.skipped * truth.seconds) / truth.perspectives)} saved` : "";
    children.push(element("p", { className: "note", textContent: `${count(truth.skipped)} perspectives without phase retrieval${saved}.` }));
  }
  const history = regime.history.slice(-4).reverse().map((row) => element("li", {},
    element("time", { textContent: new Date(1000 * row.time_s).toLocaleTimeString() }), ` ${row.regime} from perspective ${row.perspective}: ${row.reason}`));
  if (history.length) children.push(element("ol", { className: "words" }, ...history));
  byId("regime-card-content").replaceChildren(...children);
}

function thresholds({ threshold_psnr_phase_db: psnr, threshold_ssim_phase: ssim }) {
  const texts = [];
  if (psnr != null) texts.push(`phase PSNR of ${fixed(psnr, 1)} dB`);
  if (ssim != null) texts.push(`phase SSIM of ${fixed(ssim, 2)}`);
  return texts.join(" and ");
}
