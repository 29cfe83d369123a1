// What the address says after its #: agent, sorting, axis, zoom and so on, for bookmarks and the back button.
export function read() {
  return new URLSearchParams(location.hash.slice(1));
}

// Changes some values; null removes one. With `step` the back button returns to the former address.
export function write(changes, { step = false } = {}) {
  const values = read();
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === "" || value === undefined) values.delete(key);
    else values.set(key, value);
  }
  const text = values.toString();
  const before = location.hash.slice(1);
  if (text === before) return;
  const place = text ? `#${text}` : location.pathname + location.search;
  try {
    if (step) history.pushState(null, "", place);
    else history.replaceState(null, "", place);
  } catch { location.hash = text; }
}

export function agentInAddress() {
  return read().get("agent") || null;
}
