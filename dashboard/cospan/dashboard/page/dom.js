// Creates elements; no text is parsed as HTML.
export const byId = (id) => document.getElementById(id);

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function draw(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// A sentence in which names of options, as --rank, stay on one line.
export function withCode(text) {
  return text.split(/(--[a-z][a-z-]*(?: \d+)?)/).map((part, place) => (place % 2 ? make("code", {}, part) : part));
}

// Writes only changed text: the same text would trigger layout and screen readers again.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Renders a view again whenever its root has another width, which `view.width` then holds. The width is read once per
// size: reading it after every drawing would lay the page out again for each chart.
export function followWidth(view) {
  view.width = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.round(entry.contentRect.width);
    if (width === view.width) return;
    view.width = width;
    view.render();
  }).observe(view.root);
}
