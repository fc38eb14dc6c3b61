// The runs that can be opened.

import { byId, element } from "./dom.js";
import { count, fixed } from "./format.js";
import { earlierRun, store } from "./store.js";

async function fill() {
  const answer = await fetch("api/runs");
  if (!answer.ok) return;
  const rows = await answer.json();
  const shown = store.present?.run ?? earlierRun;
  byId("run-list").replaceChildren(...rows.map((row) => element(
    "li", {},
    element(
      "a", { href: row.watched ? "./" : `./?run=${encodeURIComponent(row.name)}`, ariaCurrent: row.name === shown ? "page" : "false" },
      element("b", { textContent: row.name }),
      element("span", { textContent: describe(row) }),
    ),
  )));
}

function describe(row) {
  if (row.live) return "now";
  const when = new Date(1000 * row.changed_s).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  const frames = row.frames == null ? "no summary" : `${count(row.frames)} frames`;
  const quality = row.psnr_phase_db == null ? "" : `, held-out phase ${fixed(row.psnr_phase_db, 1)} dB`;
  return `${when}, ${frames}${quality}`;
}

byId("back").hidden = !earlierRun;
byId("runs").addEventListener("toggle", () => byId("runs").open && fill());
