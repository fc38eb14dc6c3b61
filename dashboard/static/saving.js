// Links to the images as files.

import { byId, element } from "./dom.js";
import { address } from "./store.js";

let shown = null;

export function drawSaving(perspective, rows, pass) {
  const kinds = [pass, "reference"].filter((kind) => rows.some((row) => row.kind === kind));
  const wanted = `${perspective} ${kinds}`;
  if (wanted === shown) return;
  shown = wanted;
  const files = kinds.map((kind) => element(
    "p", {}, element("b", { textContent: kind === "reference" ? "Reference" : "Network" }),
    link(perspective, kind, ".h5", "HDF5"), ...["phase", "amplitude"].flatMap((channel) => [
      link(perspective, kind, `/${channel}.tiff`, `TIFF ${channel}`), link(perspective, kind, `/${channel}.png`, `PNG ${channel}`),
    ]),
  ));
  byId("saving").replaceChildren(...(files.length ? files : [element("p", { className: "note", textContent: "No image yet." })]));
}

function link(perspective, kind, ending, text) {
  const file = `perspective_${perspective}_${kind}${ending.replace("/", "_")}`;
  return element("a", { href: address(`api/mosaics/${perspective}/${kind}${ending}`), download: file, textContent: text });
}
