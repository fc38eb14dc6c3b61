// What is learnt in a run, and what the same things are called there.

import { store } from "./store.js";

const WORDS = {
  scan: {
    frames: "Frames", frame: "frame", section: "perspective", imaged: "frames imaged", baseline: "constant", latency: "Frame to image",
  },
  classification: {
    frames: "Images", frame: "image", section: "task", imaged: "images classified", baseline: "guessing", latency: "Image to class",
  },
};

// A run that has not said yet what it streams is taken for a scan.
export function pipeline() {
  return store.present?.classification ? "classification" : "scan";
}

export function word(name) {
  return WORDS[pipeline()][name];
}

// Panels that only the other pipeline has are hidden by style sheet, before anything is drawn.
export function drawPipeline() {
  document.documentElement.dataset.pipeline = pipeline();
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = word(node.dataset.word);
}
