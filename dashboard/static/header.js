// The line at the top: which run, how it stands, how far it is.

import { byId, element, setText } from "./dom.js";
import { count, duration, fixed, missing } from "./format.js";
import { isOver, serverNow, store } from "./store.js";

const RATE_OVER_S = 120;

export function drawHeader() {
  const { present } = store;
  document.title = `${present.run} · ptychoflow`;
  setText("run", present.run);
  const failed = present.state === "failed";
  setText("run-state", present.live ? present.state : `earlier run${failed ? ", failed" : ""}`);
  byId("run-state").dataset.state = present.live || failed ? present.state : "done";
  setText("source", (present.scan ?? present.classification)?.source.split("/").at(-1) ?? missing);
  drawProgress();
  const { applied, published } = present.weights;
  setText("model", applied == null ? missing : `version ${applied}${published > applied ? ` of ${published}` : ""}`);
  setText("regime", present.regime.name);
  byId("parts-short").replaceChildren(...["acquisition", "trainer", "edge"].map(dot));
}

export function drawClock() {
  const { present } = store;
  const end = isOver() ? present.last_event_s : serverNow();
  setText("elapsed", present.started_s == null ? missing : duration(end - present.started_s));
  for (const node of document.querySelectorAll("[data-heard]")) {
    node.textContent = node.dataset.state === "running" ? `${duration(serverNow() - Number(node.dataset.heard))} ago` : node.dataset.state;
  }
}

function drawProgress() {
  const { frames, scan, classification } = store.present;
  const expected = scan?.frames_expected ?? classification?.images_expected;
  const rest = expected ? expected - frames.acquired : 0;
  setText("frames-short", expected ? `${count(frames.acquired)} of ${count(expected)}${timeLeft(rest)}` : `${count(frames.acquired)}${underWay()}`);
  byId("progress").style.width = `${fixed(100 * Math.min(expected ? frames.acquired / expected : shareOfScan(), 1), 1)}%`;
}

// Of a scan that nobody knows the end of: how far it has come.
function underWay() {
  const { probe, scan } = store.present;
  if (!probe) return "";
  const one = scan?.perspectives ? ` (${count(probe.perspective + 1)} of ${count(scan.perspectives)})` : "";
  const frame = probe.most_frames ? `, frame ${count(probe.index + 1)} of ${count(probe.most_frames)}` : "";
  return `, perspective ${probe.perspective}${one}${frame}`;
}

// Of the perspectives, or of the one that is being scanned where nobody knows how many there will be.
function shareOfScan() {
  const { probe, scan } = store.present;
  if (!probe) return 0;
  const share = probe.most_frames ? Math.min((probe.index + 1) / probe.most_frames, 1) : 0;
  return scan?.perspectives ? (probe.perspective + share) / scan.perspectives : share;
}

// From the rate at which frames were imaged lately: what the scan itself takes is not told in advance.
function timeLeft(rest) {
  const { time_s: times = [], frames_per_s: rates = [] } = store.series.edge ?? {};
  const since = (times.at(-1) ?? 0) - RATE_OVER_S;
  const recent = rates.filter((rate, index) => times[index] >= since && rate > 0);
  if (rest <= 0 || isOver() || !recent.length) return "";
  const mean = recent.reduce((sum, rate) => sum + rate, 0) / recent.length;
  return `, ${duration(rest / mean)} left`;
}

function dot(name) {
  const state = store.present.parts.find((part) => part.part === name)?.state ?? "starting";
  return element("span", { className: "dot", dataset: { state }, title: state, textContent: name });
}
