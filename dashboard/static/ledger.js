// Where every acquired frame ended.

import { byId, element, row } from "./dom.js";
import { count } from "./format.js";
import { pipeline, word } from "./pipeline.js";
import { isOver, store } from "./store.js";

const ENDS = [
  ["trained", "Training"],
  ["validation", "Validation"],
  ["held_out", "Held out"],
  ["excluded", "Gap around held-out region"],
  ["void", "Empty area"],
  ["unlabelled", "Without ground truth"],
  ["rejected", "Rejected"],
  ["unplaced", "Without a place"],
];

const REASONS = {
  unplaced_because: {
    no_position: "without a position that came in time",
    late: "came when their series was over",
    series_unusable: "of a series that showed too little",
  },
  missing_because: {
    gap: "never came, though later ones did",
    position_only: "never came, though their positions did",
  },
};

export function drawLedger() {
  const { frames } = store.present;
  const parts = ENDS.filter(([name]) => frames[name] > 0);
  const total = Math.max(frames.acquired, frames.accounted, 1);
  const bar = element("div", { className: "stack", role: "img", ariaLabel: "Where the acquired frames ended" });
  for (const [name, title] of parts) {
    const piece = element("i", { dataset: { end: name }, title: `${title}: ${count(frames[name])}` });
    piece.style.width = `${(100 * frames[name]) / total}%`;
    bar.append(piece);
  }
  const list = element("dl", { className: "rows ledger" },
    row("Acquired", count(frames.acquired), { end: "acquired" }),
    ...parts.map(([name, title]) => row(title, count(frames[name]), { end: name })),
    row(missingWord(), count(frames.lost), { end: "lost" }),
    ...(frames.missing ? [row("Never came", count(frames.missing), { end: "missing" })] : []));
  if (!frames.acquired && !frames.accounted) {
    byId("ledger").replaceChildren(element("p", { className: "note", textContent: isOver() ? `No ${word("frame")} came.` : `No ${word("frame")} yet.` }));
    return;
  }
  const verdict = element("p", { className: "verdict", ...balance(frames) });
  const again = frames.refreshed ? `; imaged again ${count(frames.refreshed)} times` : "";
  const reasons = element("p", { className: "note", textContent: why(frames) });
  const edge = element("p", { className: "note", textContent: `${imaged()} ${count(frames.inferred)} of ${count(frames.published)} sent to the edge${again}.${exceptions()}` });
  byId("ledger").replaceChildren(bar, list, verdict, ...(reasons.textContent ? [reasons] : []), edge);
}

function why(frames) {
  const texts = Object.entries(REASONS).flatMap(([kind, words]) =>
    Object.entries(frames[kind]).map(([reason, number]) => `${count(number)} ${words[reason]}`));
  return texts.length ? `${texts.join("; ")}.` : "";
}

function imaged() {
  return pipeline() === "scan" ? "Imaged" : "Classified";
}

function exceptions() {
  const { inference } = store.present;
  const texts = [["waiting", "waiting"], ["put_off", "imaged later, as they came too fast"], ["refused", "refused"], ["unstitched", "left out of the image"]]
    .filter(([name]) => inference?.[name] > 0).map(([name, title]) => `${count(inference[name])} ${title}`);
  return texts.length ? ` ${texts.join(", ")}.` : "";
}

// What a part that was killed ended with is not known to be lost.
function missingWord() {
  if (!isOver()) return "On the way";
  return store.present.unheard.length ? "Not known of" : "Lost";
}

function balance(frames) {
  const says = (verdict, textContent) => ({ textContent, dataset: { verdict } });
  if (frames.lost < 0) return says("wrong", `Out of balance: ${count(-frames.lost)} counted twice.`);
  if (frames.lost === 0) return says("balanced", `Balanced: every ${word("frame")} is accounted for.`);
  if (isOver() && store.present.unheard.length) return says("wrong", `Out of balance: the end of ${count(frames.lost)} is not known, as no last count came from ${store.present.unheard.join(" and ")}.`);
  if (isOver()) return says("wrong", `Out of balance: ${count(frames.lost)} lost.`);
  return says("open", `${count(frames.lost)} wait for ${pipeline() === "scan" ? "ground truth or training" : "training"}.`);
}
