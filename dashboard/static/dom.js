// Small helpers to build the page. Text from the run is only ever set as text, never as markup.

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

export function toggle(name) {
  const other = document.querySelector(`input[name="${name}"]:not(:checked)`);
  other.checked = true;
  other.dispatchEvent(new Event("change", { bubbles: true }));
}
