// Images whose classes come task by task: how often the network is right, in place of stitched images.

import { byId, element, refill } from "./dom.js";
import { count, fixed, missing } from "./format.js";
import { store } from "./store.js";

const OF_SCANS = ["images", "quality-card", "regime-card", "regimes", "history-controls"];
const HEAD = ["Task", "Images", "Live top-1", "top-5", "After the newest task top-1", "top-5"];

export function drawTasks() {
  const { classification } = store.present;
  byId("tasks").hidden = !classification;
  for (const id of OF_SCANS) byId(id).hidden = Boolean(classification);
  if (classification) refill("task-table", classification, () => [table(classification), element("p", { className: "note", textContent: note(classification) })]);
}

function table({ tasks, chance_top1: one, chance_top5: five }) {
  const cells = (title, texts, className = "") => element("tr", { className }, element("th", { scope: "row", textContent: title }), ...texts.map((textContent) => element("td", { textContent })));
  const head = element("tr", {}, ...HEAD.map((textContent) => element("th", { scope: "col", textContent })));
  const body = tasks.map((row) => cells(`${row.task}: ${names(row)}`, [
    `${count(row.images)} of ${count(row.images_expected)}`, fixed(row.top1, 3), fixed(row.top5, 3), fixed(row.now_top1, 3), fixed(row.now_top5, 3),
  ]));
  const mean = (column) => {
    const known = tasks.map((row) => row[column]).filter((value) => value != null);
    return known.length ? fixed(known.reduce((sum, value) => sum + value, 0) / known.length, 3) : missing;
  };
  const means = cells("Mean", ["", ...["top1", "top5", "now_top1", "now_top5"].map(mean)], "total");
  const guessing = cells("Guessing", ["", ...[one, five, one, five].map((value) => fixed(value, 3))], "baseline");
  return element("table", { className: "tasks" }, element("thead", {}, head), element("tbody", {}, ...body, means, guessing));
}

function names({ class_names: shown, classes }) {
  return shown.join(", ") + (classes > shown.length ? ` and ${classes - shown.length} more` : "");
}

function note({ source, classes, stored_px: side }) {
  return `${source}: ${classes} classes, images of ${side} px. Live: each validation image once, on arrival, with the weights of that moment. ` +
    "Nothing learns from validation images, and the network is not told which task an image belongs to.";
}
