// The viewer's copy of the state, brought up to date by the updates that the server pushes.

export const store = { present: null, series: {}, perspectives: new Map(), validation: new Map(), warnings: new Map(), received: 0 };

// An earlier run is named in the address; without, the page shows the run that is watched.
export const earlierRun = new URLSearchParams(location.search).get("run");

// Paths begin without a slash: a proxy may serve the page under a path of its own.
export function address(path, parameters = {}) {
  const query = new URLSearchParams(parameters);
  if (earlierRun) query.set("run", earlierRun);
  return `${path}?${query}`;
}

export function take(update) {
  if (store.present?.instance !== update.present.instance) forget();
  store.present = update.present;
  store.received = Date.now();
  for (const [name, patch] of Object.entries(update.series)) takePatch(name, patch);
  for (const row of update.perspectives) store.perspectives.set(row.perspective, row);
  if (update.validation_anew) store.validation.clear();
  for (const row of update.validation) store.validation.set(row.after_perspective, row);
  for (const row of update.warnings) store.warnings.set(row.id, row);
}

export function forget() {
  store.series = {};
  for (const rows of [store.perspectives, store.validation, store.warnings]) rows.clear();
}

function takePatch(name, patch) {
  const columns = (store.series[name] ??= {});
  for (const [column, values] of Object.entries(patch.columns)) {
    columns[column] = (columns[column] ?? []).slice(0, patch.start).concat(values);
  }
}

export function perspectivesInOrder() {
  return [...store.perspectives.values()].sort((a, b) => a.perspective - b.perspective);
}

export function isOver() {
  return !store.present.live || ["done", "failed"].includes(store.present.state);
}

// The clock of the dashboard's host; for a run that is over, when it was heard of last.
export function serverNow() {
  if (!store.present.live) return store.present.last_event_s ?? 0;
  return store.present.now_s + (Date.now() - store.received) / 1000;
}
