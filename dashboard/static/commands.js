// Commands to the run. The token is kept for this tab alone and sent as a header, so that no other page can use it.

import { refusal } from "./answers.js";
import { byId, element, setText } from "./dom.js";
import { store } from "./store.js";

const KEPT_AS = "token";
const WRONG = "That is not the token of this run.";
const SURE_MS = 4_000;

export function drawCommands() {
  const { present } = store;
  byId("commands").hidden = !present.live || !present.controllable;
  const unlocked = token() !== null;
  byId("locked").hidden = unlocked;
  byId("unlocked").hidden = !unlocked;
  const acquisition = present.parts.find((part) => part.part === "acquisition")?.state;
  byId("pause").hidden = acquisition === "paused";
  byId("resume").hidden = acquisition !== "paused";
  for (const button of document.querySelectorAll("#regimes button[value]")) button.ariaPressed = String(button.value === present.regime.name);
  drawVersions(present.weights);
}

function drawVersions({ versions, applied }) {
  const select = byId("version");
  const wanted = [...versions].reverse();
  const texts = wanted.map((version) => `version ${version}${version === applied ? ", in use" : ""}`);
  if (texts.join() === [...select.options].map((option) => option.textContent).join()) return;
  const { value } = select;
  select.replaceChildren(...wanted.map((version, index) => element("option", { value: String(version), textContent: texts[index] })));
  if (wanted.includes(Number(value))) select.value = value;
}

function token() {
  return sessionStorage.getItem(KEPT_AS);
}

// Returns null, and says so, if nobody answers.
async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { Authorization: `Bearer ${token()}` } }).catch(() => null);
  if (answer === null) say("The dashboard does not answer: look at the run's state, and try again.");
  if (answer?.status === 401) lock();
  return answer;
}

async function unlock(event) {
  event.preventDefault();
  const given = byId("token").value.trim();
  byId("token").value = "";
  // a header holds nothing else: it would not be sent at all
  if (!/^[\x20-\x7e\xa0-\xff]+$/.test(given)) return say(WRONG);
  sessionStorage.setItem(KEPT_AS, given);
  const answer = await ask("api/commands");
  if (answer !== null) say(answer.ok ? "" : await refused(answer));
  drawCommands();
}

function lock() {
  sessionStorage.removeItem(KEPT_AS);
  drawCommands();
}

async function send(command, parameters = {}) {
  const answer = await ask(`api/commands/${command}?${new URLSearchParams(parameters)}`, { method: "POST" });
  if (answer !== null) say(answer.ok ? `Sent: ${command.replaceAll("_", " ")}.` : await refused(answer));
}

async function refused(answer) {
  return answer.status === 401 ? WRONG : `Refused: ${await refusal(answer)}`;
}

function say(text) {
  setText("command-result", text);
}

// What cannot be undone takes a second press.
function askTwice(button, action) {
  const { textContent } = button;
  let sure = false;
  button.onclick = () => {
    if (sure) action();
    sure = !sure;
    button.textContent = sure ? "Press again to stop" : textContent;
    button.classList.toggle("sure", sure);
    if (sure) setTimeout(() => { sure = false; button.textContent = textContent; button.classList.remove("sure"); }, SURE_MS);
  };
}

byId("locked").onsubmit = unlock;
byId("lock").onclick = lock;
for (const name of ["pause", "resume", "write_checkpoint", "follow_scores", "follow_weights"]) byId(name).onclick = () => send(name);
for (const button of document.querySelectorAll("#regimes button[value]")) button.onclick = () => send("set_regime", { regime: button.value });
byId("roll_back_weights").onclick = () => send("roll_back_weights", { version: byId("version").value });
askTwice(byId("stop_run"), () => send("stop_run"));
