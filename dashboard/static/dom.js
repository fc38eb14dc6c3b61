// Small helpers to build the page. Text from the run is only ever set as text, never as markup.

const shownIn = new WeakMap();

export function byId(id) {
  return document.getElementById(id);
}

export function element(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const node = Object.assign(document.createElement(tag), rest);
  Object.assign(node.dataset, dataset ?? {});
  node.append(...children);
  return node;
}

export function setText(id, text) {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
}

export function chosen(name) {
  return document.querySelector(`input[name="${name}"]:checked`).value;
}

// Choose the next of a group of radio buttons.
export function toggle(name) {
  const choices = [...document.querySelectorAll(`input[name="${name}"]`)];
  const next = choices[(choices.findIndex((choice) => choice.checked) + 1) % choices.length];
  next.checked = true;
  next.dispatchEvent(new Event("change", { bubbles: true }));
}

export function row(title, text, data = {}) {
  return element("div", { dataset: data }, element("dt", { textContent: title }), element("dd", { textContent: text }));
}

// Fill a node anew, but only if `content` is not what it shows already: a reader's selection and focus stay.
export function refill(id, content, make) {
  const node = byId(id);
  const key = JSON.stringify(content);
  if (shownIn.get(node) === key) return;
  shownIn.set(node, key);
  node.replaceChildren(...make());
}

export function askRedraw() {
  document.dispatchEvent(new Event("redraw"));
}
