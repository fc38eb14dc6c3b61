// How good the image that is shown is, and the held-out frames.

import { chosen, element, refill } from "./dom.js";
import { count, fixed, missing, signed } from "./format.js";
import { chosenPerspective } from "./images.js";
import { residualBlock } from "./residual.js";
import { isOver, store } from "./store.js";

const TITLES = { refreshed: "refreshed", first_pass: "first pass" };

export function drawQuality() {
  const shown = chosenPerspective();
  const perspective = scored(shown);
  const scores = store.perspectives.get(perspective);
  const pass = scores?.[chosen("pass")] ? chosen("pass") : "first_pass";
  const held = heldOut(shown);
  const { residual, calibration } = store.present;
  refill("quality", [perspective, pass, scores, held, residual, calibration, isOver()], () => [...tables(perspective, pass, scores, held), ...residualBlock()]);
}

function tables(perspective, pass, scores, held) {
  const children = [];
  if (scores?.[pass]) children.push(table(`Perspective ${perspective}, ${TITLES[pass]}`, scores[pass], scores.constant));
  for (const { perspective: of, frames, quality, constant, memoriser } of held) {
    children.push(table(`Held out in perspective ${of}: ${count(frames)} frames never learned from`, quality, constant, memoriser));
  }
  if (!children.length) children.push(element("p", { className: "note", textContent: isOver() ? "Nothing was scored: no image had a reference." : "Scores come with the first reference image." }));
  return children;
}

function table(title, quality, constant, memoriser = null) {
  const gain = quality.psnr_phase_db - constant.psnr_phase_db;
  const finite = quality.psnr_phase_db != null && constant.psnr_phase_db != null;
  const verdict = gain > 0 ? "dB phase PSNR over the constant" : "dB phase PSNR: no better than the constant";
  const head = element("tr", {}, ...["", "PSNR / dB", "SSIM", "Corr."].map((text) => element("th", { textContent: text, scope: "col" })));
  const lines = [["Phase", quality, "phase"], ["Amplitude", quality, "amplitude"], ["Constant, phase", constant, "phase"], ["Constant, amplitude", constant, "amplitude"]];
  if (memoriser) lines.push(["Memoriser, phase", memoriser, "phase"], ["Memoriser, amplitude", memoriser, "amplitude"]);
  return element(
    "div", { className: "quality" },
    element("h3", { textContent: title }),
    element("p", { className: "headline", dataset: { good: String(gain > 0) } },
      element("b", { textContent: finite ? signed(gain, 1) : missing }), ` ${finite ? verdict : ""}`),
    element("table", {}, element("thead", {}, head), element("tbody", {}, ...lines.map((one) => line(one, quality)))),
  );
}

// The held-out frames of the perspective that is shown, or of the newest that has some.
function heldOut(shown) {
  const rows = store.present.held_out;
  const own = rows.filter((row) => row.perspective === shown);
  return own.length ? own : rows.slice(-1);
}

// The perspective that is shown, or the newest that has scores.
function scored(shown) {
  const rows = [...store.perspectives.values()].filter((row) => row.first_pass || row.refreshed);
  return rows.some((row) => row.perspective === shown) ? shown : Math.max(...rows.map((row) => row.perspective));
}

function line([name, figures, channel], quality) {
  const texts = [fixed(figures[`psnr_${channel}_db`], 2), fixed(figures[`ssim_${channel}`], 3), fixed(figures[`correlation_${channel}`], 2)];
  return element(
    "tr", { className: figures === quality ? "" : "baseline" },
    element("th", { textContent: name, scope: "row" }),
    ...texts.map((textContent) => element("td", { textContent })),
  );
}
