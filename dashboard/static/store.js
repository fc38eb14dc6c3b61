// The viewer's copy of the state, brought up to date by the updates that the server pushes.

export const store = { present: null, series: {}, perspectives: new Map(), warnings: new Map(), received: 0 };

export function take(update) {
  if (store.present?.instance !== update.present.instance) forget();
  store.present = update.present;
  store.received = Date.now();
  for (const [name, patch] of Object.entries(update.series)) takePatch(name, patch);
  for (const row of update.perspectives) store.perspectives.set(row.perspective, row);
  for (const row of update.warnings) store.warnings.set(row.id, row);
}

export function forget() {
  store.series = {};
  store.perspectives.clear();
  store.warnings.clear();
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

export function serverNow() {
  return store.present.now_s + (Date.now() - store.received) / 1000;
}
