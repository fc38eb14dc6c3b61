// What a training step's time goes into, beside what the buffer does meanwhile.

import { byId, element } from "./dom.js";
import { milliseconds } from "./format.js";
import { store } from "./store.js";

const FOREGROUND = [["load_ms", "load data"], ["train_ms", "train"], ["buffer_wait_ms", "wait for buffer"]];
const BACKGROUND = [["populate_ms", "update buffer"], ["augment_ms", "sample buffer"]];

export function drawStep() {
  const columns = store.series.steps;
  const there = columns?.step?.length > 0;
  byId("step-card").hidden = !there;
  if (!there) return;
  const value = (name) => columns[name].at(-1);
  const sum = (parts) => parts.reduce((total, [name]) => total + value(name), 0);
  const longest = Math.max(sum(FOREGROUND), sum(BACKGROUND), 1e-9);
  const bar = (title, parts) => [
    element("dt", { textContent: title }),
    element("dd", {}, element("span", { className: "meter" }, ...parts.map(([name]) => piece(name, (100 * value(name)) / longest))), element("b", { textContent: milliseconds(sum(parts)) })),
  ];
  byId("step").replaceChildren(
    element("dl", { className: "bars" }, ...bar("Step", FOREGROUND), ...bar("Background", BACKGROUND)),
    element("p", { className: "legend" }, ...[...FOREGROUND, ...BACKGROUND].map(([name, title]) => element("span", { dataset: { time: name }, textContent: `${title} ${milliseconds(value(name))}` }))),
  );
}

function piece(name, share) {
  const node = element("i", { dataset: { time: name } });
  node.style.width = `${share}%`;
  return node;
}
