// Images whose classes come task by task: how often the network is right, in place of stitched images.

import { element, refill } from "./dom.js";
import { count, fixed, missing } from "./format.js";
import { pipeline } from "./pipeline.js";
import { store } from "./store.js";

const FIGURES = ["top1", "top5", "now_top1", "now_top5"];

export function drawTasks() {
  const { classification } = store.present;
  if (pipeline() === "classification") refill("task-table", classification, () => [table(classification), element("p", { className: "note", textContent: note(classification) })]);
}

function table({ tasks, chance_top1: one, chance_top5: five }) {
  const body = tasks.map((row) => line(`${row.task}: ${names(row)}`, `${count(row.images)} / ${count(row.images_expected)}`, FIGURES.map((name) => row[name])));
  const means = line("Mean", "", FIGURES.map((name) => mean(tasks, name)), "total");
  const guessing = line("Guessing", "", [one, five, one, five], "baseline");
  return element("table", { className: "tasks" }, head(), element("tbody", {}, ...body, means, guessing));
}

function head() {
  const cell = (textContent, more = {}) => element("th", { textContent, scope: "col", ...more });
  const groups = element("tr", { className: "groups" }, cell("Task", { rowSpan: 2 }), cell("Images", { rowSpan: 2, className: "roomy" }),
    cell("Online", { colSpan: 2, scope: "colgroup", title: "Each validation image once, on arrival, with the weights of that moment" }),
    cell("Current", { colSpan: 2, scope: "colgroup", title: "All validation images with the network after the newest task that was learnt" }));
  return element("thead", {}, groups, element("tr", {}, ...["top-1", "top-5", "top-1", "top-5"].map((text) => cell(text))));
}

function line(title, images, figures, className = "") {
  return element("tr", { className }, element("th", { scope: "row", textContent: title }), element("td", { className: "roomy", textContent: images }),
    ...figures.map((value) => element("td", { textContent: fixed(value, 3), className: value == null ? "unknown" : "" })));
}

function mean(tasks, name) {
  const known = tasks.map((row) => row[name]).filter((value) => value != null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

function names({ class_names: shown, classes }) {
  return shown.join(", ") + (classes > shown.length ? ` and ${classes - shown.length} more` : "") || missing;
}

function note({ source, classes, stored_px: side }) {
  return `${source}: ${classes} classes, images of ${side} × ${side} px. Online: each validation image once, on arrival, with the weights of that moment. ` +
    "Current: all of them, with the network after the newest task that was learnt. Nothing learns from validation images, and the network is not told which task an image belongs to.";
}
