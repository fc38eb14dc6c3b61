// The figures beside the images: quality, frame ledger, rates, parts, warnings.

import { byId, element, setText } from "./dom.js";
import { count, duration, fixed, milliseconds, missing, percent, rate, signed } from "./format.js";
import { chosenPass, chosenPerspective } from "./images.js";
import { serverNow, store } from "./store.js";

const ENDS = [
  ["trained", "Trained on"],
  ["validation", "Validation"],
  ["held_out", "Held out"],
  ["excluded", "Gap around held-out"],
  ["void", "Over void"],
  ["unlabelled", "Without ground truth"],
  ["rejected", "Rejected"],
];
const EXPECTED_PARTS = ["acquisition", "trainer", "edge"];

export function drawPanels() {
  drawHeader();
  drawQuality();
  drawLedger();
  drawRates();
  drawParts();
  drawWarnings();
}

export function drawClock() {
  const { present } = store;
  const end = present.state === "running" || present.state === "starting" ? serverNow() : present.last_event_s;
  setText("elapsed", present.started_s == null ? missing : duration(end - present.started_s));
  for (const node of document.querySelectorAll("[data-heard]")) {
    node.textContent = node.dataset.state === "running" ? `${duration(serverNow() - Number(node.dataset.heard))} ago` : node.dataset.state;
  }
}

function drawHeader() {
  const { present } = store;
  document.title = `${present.run} · ptychoflow`;
  setText("run", present.run);
  setText("run-state", present.state);
  byId("run-state").dataset.state = present.state;
  setText("source", present.scan?.source.split("/").at(-1) ?? missing);
  byId("source").title = present.scan?.notes.join("\n") ?? "";
  const { applied, published } = present.weights;
  setText("model", applied == null ? missing : `version ${applied}` + (published > applied ? ` (${published} published)` : ""));
  const dots = knownParts().filter((part) => EXPECTED_PARTS.includes(part.part)).map((part) => element("span", { className: "dot", dataset: { state: part.state }, title: part.state, textContent: part.part }));
  byId("parts-short").replaceChildren(...dots);
}

function knownParts() {
  const known = new Map(store.present.parts.map((part) => [part.part, part]));
  for (const part of EXPECTED_PARTS) {
    if (!known.has(part)) known.set(part, { part, state: "starting", text: "not heard of yet", last_heard_s: null, words: [] });
  }
  return [...known.values()];
}

function drawQuality() {
  const rows = store.present.mosaics.filter((row) => row.perspective === chosenPerspective());
  const pass = chosenPass(rows);
  const scores = store.perspectives.get(chosenPerspective());
  const children = [];
  if (scores?.[pass]) {
    const title = pass === "refreshed" ? "This perspective, refreshed" : "This perspective, first pass";
    children.push(qualityTable(title, scores[pass], scores.constant));
  }
  for (const held of store.present.held_out.slice(-1)) {
    children.push(qualityTable(`Held out, ${count(held.frames)} frames never learned from`, held.quality, held.constant));
  }
  if (!children.length) children.push(element("p", { className: "note", textContent: "Scores come with the first reference image." }));
  byId("quality").replaceChildren(...children);
}

function qualityTable(title, quality, constant) {
  const gain = quality.psnr_phase_db - constant.psnr_phase_db;
  const finite = quality.psnr_phase_db != null && constant.psnr_phase_db != null;
  const verdict = gain > 0 ? "dB phase, above the constant" : "dB phase, no better than the constant";
  const head = element("tr", {}, ...["", "PSNR / dB", "SSIM", "corr."].map((text) => element("th", { textContent: text, scope: "col" })));
  const lines = [["Phase", quality, "phase"], ["Amplitude", quality, "amplitude"], ["Constant, phase", constant, "phase"], ["Constant, ampl.", constant, "amplitude"]];
  const body = lines.map(([name, figures, channel]) => element(
    "tr", { className: figures === constant ? "baseline" : "" },
    element("th", { textContent: name, scope: "row" }),
    ...[fixed(figures[`psnr_${channel}_db`], 2), fixed(figures[`ssim_${channel}`], 3), fixed(figures[`correlation_${channel}`], 2)]
      .map((text) => element("td", { textContent: text })),
  ));
  return element(
    "div", { className: "quality" },
    element("h3", { textContent: title }),
    element("p", { className: "headline", dataset: { good: String(gain > 0) } },
      element("b", { textContent: finite ? signed(gain, 1) : missing }), ` ${finite ? verdict : ""}`),
    element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)),
  );
}

function drawLedger() {
  const { frames, scan, state } = store.present;
  const ended = state === "done" || state === "failed";
  const parts = ENDS.filter(([name]) => frames[name] > 0);
  const bar = element("div", { className: "stack", role: "img", ariaLabel: "Where the acquired frames ended" });
  const total = Math.max(frames.acquired, frames.accounted, 1);
  for (const [name, title] of parts) {
    const piece = element("i", { dataset: { end: name }, title: `${title}: ${count(frames[name])}` });
    piece.style.width = `${(100 * frames[name]) / total}%`;
    bar.append(piece);
  }
  const expected = scan?.frames_expected;
  const rows = [["acquired", "Acquired", expected ? `${count(frames.acquired)} of ${count(expected)}` : count(frames.acquired)],
    ...parts.map(([name, title]) => [name, title, count(frames[name])]),
    ["lost", ended ? "Lost" : "On the way", count(frames.lost)]];
  const list = element("dl", { className: "rows ledger" }, ...rows.map(([name, title, text]) => row(title, text, name)));
  const verdict = element("p", { className: "verdict", ...balance(frames, ended) });
  const edge = element("p", { className: "note", textContent: `Imaged ${count(frames.inferred)} of ${count(frames.published)} sent to the edge, refreshed ${count(frames.refreshed)} times.` });
  byId("ledger").replaceChildren(bar, list, verdict, edge);
}

function balance(frames, ended) {
  const says = (verdict, textContent) => ({ textContent, dataset: { verdict } });
  if (frames.lost < 0) return says("wrong", `Out of balance: ${count(-frames.lost)} frames counted twice.`);
  if (frames.lost === 0) return says("balanced", "Balanced: the end of every frame is known.");
  if (ended) return says("wrong", `Out of balance: ${count(frames.lost)} frames lost.`);
  return says("open", `${count(frames.lost)} frames wait for ground truth or training.`);
}

function row(title, text, end = "") {
  return element("div", { dataset: { end } }, element("dt", { textContent: title }), element("dd", { textContent: text }));
}

function drawRates() {
  const { frames, training, buffer, ground_truth: truth } = store.present;
  const inference = frames.inferred ? store.present.inference : null;
  const size = buffer.reduce((sum, rank) => sum + rank.size, 0);
  const hidden = buffer.reduce((sum, rank) => sum + rank.hidden_fraction, 0) / buffer.length;
  const fill = buffer.length ? `${count(size)} of ${count(buffer[0].capacity)}` : missing;
  byId("rates").replaceChildren(
    row("Frames imaged", rate(inference?.frames_per_s)),
    row("Frame to image, median", milliseconds(inference?.frame_to_image_p50_ms)),
    row("Frame to image, 99 %", milliseconds(inference?.frame_to_image_p99_ms)),
    row("Samples trained", rate(training?.samples_per_s)),
    row("Training step", count(training?.step)),
    row("Rehearsal buffer", fill),
    row("Buffer work hidden", buffer.length ? `${percent(hidden)} (${buffer[0].transport})` : missing),
    row("Phase retrieval", truth.perspectives ? `${count(truth.perspectives)} × ${duration(truth.seconds / truth.perspectives)}` : missing),
  );
}

function drawParts() {
  byId("parts").replaceChildren(...knownParts().map((part) => element(
    "li", { title: part.words.map((word) => `${new Date(1000 * word.time_s).toLocaleTimeString()}  ${word.text || word.state}`).join("\n") },
    element("span", { className: "dot", dataset: { state: part.state }, textContent: part.part }),
    ...(EXPECTED_PARTS.includes(part.part) ? [lastHeard(part)] : []),
    element("p", { textContent: part.text }),
  )));
  drawClock();
}

function lastHeard(part) {
  return element("time", { dataset: { heard: String(part.last_heard_s ?? 0), state: part.last_heard_s == null ? "silent" : part.state } });
}

function drawWarnings() {
  const newest = [...store.warnings.values()].sort((a, b) => b.time_s - a.time_s).slice(0, 8);
  byId("warnings-card").hidden = !newest.length;
  byId("warnings").replaceChildren(...newest.map((warning) => element(
    "li", {}, element("b", { textContent: warning.part }), ` ${warning.text}`,
    element("span", { className: "times", textContent: warning.count > 1 ? ` × ${warning.count}` : "" }),
  )));
}
