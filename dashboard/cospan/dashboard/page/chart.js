// One chart of a run: lines, a band or a stack of areas; with a crosshair and a zoom that all charts share.
import { draw, followWidth, make } from "./dom.js";
import { compact, number, seconds, whole } from "./format.js";
import { boundsOf, linearTicks, logTicks, scaleOf, smoothed } from "./scale.js";

const HEIGHT = 190;
const LEFT = 52;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 30;
const LEAST_DRAG = 8;
const HIDDEN_SECONDS = 2;
export const TONES = ["first", "second", "third", "fourth"];

// What charts have in common: the axis (round or elapsed), smoothing, zoom, and the place of the crosshair.
export class Shared {
  constructor(changed = () => {}) {
    Object.assign(this, { axis: "round", smoothing: 0, zoom: null, cursor: null, charts: [], changed });
  }

  set(changes) {
    if ("axis" in changes && changes.axis !== this.axis) Object.assign(this, { zoom: null, cursor: null });
    Object.assign(this, changes);
    this.charts.forEach((chart) => chart.render());
    this.changed();
  }

  point(x) {
    if (this.cursor === x) return;
    this.cursor = x;
    this.charts.forEach((chart) => chart.renderChoice());
  }
}

export class Chart {
  // lines: [{column, name}]; band: [column, column]; stacked: whether lines are areas on each other; log: the scale at
  // first; format: how a value is written; tools: makes further elements of the head.
  constructor({ key, title, unit, lines, band, stacked = false, log = false, format = number, unknown, height = HEIGHT, tools = () => [] }, shared = new Shared()) {
    Object.assign(this, { key, title, unit, lines, band, stacked, log, format, height, shared });
    this.data = { columns: [], rows: [] };
    this.other = null;
    this.parts = [];
    this.readout = make("p", { class: "readout" });
    this.svg = draw("svg", { class: "plot", role: "img", tabindex: "0", "aria-label": title });
    this.empty = make("p", { class: "empty" }, unknown ?? "Nothing yet.");
    this.grid = draw("g");
    this.marks = draw("g");
    this.cross = draw("line", { class: "cross" });
    this.selection = draw("rect", { class: "selection", y: TOP, hidden: "" });
    this.dots = lines.map((_, place) => draw("circle", { class: `dot ${TONES[place]}`, r: 4 }));
    this.svg.append(this.grid, this.marks, this.selection, this.cross, ...(stacked ? [] : this.dots));
    this.root = make("article", { class: "card chart", id: `chart-${key}` },
      make("div", { class: "card-head" }, make("h3", {}, title), ...tools(this)), this.readout, this.svg, this.empty);
    this.listen();
    shared.charts.push(this);
    followWidth(this);
    // What is out of sight is drawn when it comes into sight, and now and then for those who print or save the page.
    this.visible = true;
    new IntersectionObserver(([entry]) => {
      this.visible = entry.isIntersecting;
      if (this.visible && this.stale) this.render();
    }).observe(this.root);
  }

  listen() {
    const { svg, shared } = this;
    svg.addEventListener("pointermove", (event) => this.onMove(event.offsetX));
    svg.addEventListener("pointerleave", () => { if (this.from === undefined) shared.point(null); });
    svg.addEventListener("blur", () => shared.point(null));
    svg.addEventListener("keydown", (event) => this.onKey(event));
    svg.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      this.from = event.offsetX;
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener("pointerup", (event) => this.onDrop(event.offsetX));
    svg.addEventListener("pointercancel", () => this.onDrop(this.from));
    svg.addEventListener("dblclick", () => shared.set({ zoom: null }));
  }

  update(columns, rows) {
    this.data = { columns, rows };
    this.stale = true;
    if (this.visible || !(performance.now() < this.due)) this.render();
  }

  compare(other) {
    this.other = other;
    this.render();
  }

  // The lines of a run: [{place, points: [[x, value], …]}]; a value that is unknown has no point.
  linesOf({ columns, rows }) {
    const at = columns.indexOf(this.shared.axis);
    const places = this.lines.map((line) => columns.indexOf(line.column));
    return places.map((place) => (place < 0 || at < 0 ? [] : rows.filter((row) => row[place] !== null && row[place] !== undefined && row[at] !== null).map((row) => [row[at], row[place]])));
  }

  bandOf({ columns, rows }) {
    if (!this.band) return [];
    const [at, low, high] = [this.shared.axis, ...this.band].map((name) => columns.indexOf(name));
    if (at < 0 || low < 0 || high < 0) return [];
    return rows.filter((row) => row[low] !== null && row[high] !== null && row[low] !== undefined).map((row) => [row[at], row[low], row[high]]);
  }

  // Each line on top of those before it.
  areasOf({ columns, rows }) {
    const at = columns.indexOf(this.shared.axis);
    const places = this.lines.map((line) => columns.indexOf(line.column));
    const known = rows.filter((row) => places.some((place) => row[place] !== null && row[place] !== undefined));
    const sums = known.map(() => 0);
    return places.map((place) => known.map((row, index) => {
      const low = sums[index];
      sums[index] += row[place] ?? 0;
      return [row[at], low, sums[index]];
    }));
  }

  render() {
    this.stale = false;
    this.due = performance.now() + 1000 * HIDDEN_SECONDS;
    const lines = this.linesOf(this.data);
    const other = this.other && !this.stacked ? this.linesOf(this.other) : [];
    const [first, last] = this.domain([...lines, ...other]);
    const inside = (points) => points.filter(([x]) => x >= first && x <= last);
    const areas = this.stacked ? this.areasOf(this.data).map(inside) : [];
    const band = inside(this.bandOf(this.data));
    const values = this.stacked ? withoutSpikes(areas.at(-1)?.map((point) => point[2]) ?? []) : [...lines, ...other].flatMap((points) => inside(points).map((point) => point[1])).concat(band.flatMap(([, low, high]) => [low, high]));
    const bounds = boundsOf(values, this.log);
    this.svg.toggleAttribute("hidden", !bounds);
    this.empty.hidden = Boolean(bounds);
    this.known = lines;
    const { width } = this;
    if (!bounds) { this.readout.replaceChildren(); this.x = null; return; }
    if (width <= 0) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.x = scaleOf(false, [first, last], [LEFT, width - RIGHT]);
    this.back = (offset) => first + ((offset - LEFT) / (width - RIGHT - LEFT)) * (last - first);
    this.y = scaleOf(this.log, bounds, [this.height - BOTTOM, TOP]);
    this.renderGrid(width, bounds, [first, last]);
    this.marks.replaceChildren(...this.marksOf(lines.map(inside), other.map(inside), areas, band));
    this.renderChoice();
  }

  domain(lines) {
    if (this.shared.zoom) return this.shared.zoom;
    let first = Infinity;
    let last = -Infinity;
    for (const points of lines) {
      if (!points.length) continue;
      first = Math.min(first, points[0][0]);
      last = Math.max(last, points.at(-1)[0]);
    }
    return [first, Math.max(last, first + 1)];
  }

  marksOf(lines, other, areas, band) {
    const { smoothing } = this.shared;
    if (this.stacked) return areas.map((points, place) => draw("path", { class: `area ${TONES[place]}`, d: this.ribbon(points) }));
    const marks = band.length ? [draw("path", { class: "band", d: this.ribbon(band) })] : [];
    lines.forEach((points, place) => {
      if (smoothing) marks.push(draw("path", { class: `line faint ${TONES[place]}`, d: this.path(points) }));
    });
    other.forEach((points, place) => marks.push(draw("path", { class: `line other ${TONES[place]}`, d: this.path(smoothing ? smoothed(points, smoothing, this.log) : points) })));
    [...lines.entries()].reverse().forEach(([place, points]) => marks.push(draw("path", { class: `line ${TONES[place]}`, d: this.path(smoothing ? smoothed(points, smoothing, this.log) : points) })));
    return marks;
  }

  renderGrid(width, [low, high], [first, last]) {
    const ticks = this.log ? logTicks(low, high) : linearTicks(low, high, 4);
    const bottom = this.height - BOTTOM;
    const parts = [];
    for (const tick of ticks) {
      const y = Math.round(this.y(tick)) + 0.5;
      parts.push(draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
      parts.push(draw("text", { x: LEFT - 8, y: y + 3.5, "text-anchor": "end" }, this.format(tick)));
    }
    const rounds = this.shared.axis === "round";
    for (const tick of linearTicks(first, last, width < 360 ? 3 : 5)) {
      if (rounds && !Number.isInteger(tick)) continue;
      parts.push(draw("text", { x: this.x(tick), y: bottom + 15, "text-anchor": "middle" }, compact(tick)));
    }
    parts.push(draw("text", { x: width - RIGHT, y: this.height - 2, "text-anchor": "end" }, rounds ? "round" : "seconds of rounds"));
    if (this.unit) parts.push(draw("text", { x: LEFT, y: this.height - 2 }, this.unit));
    parts.push(draw("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: bottom + 0.5, y2: bottom + 0.5 }));
    this.grid.replaceChildren(...parts);
  }

  path(points) {
    let text = "";
    for (const [x, value] of points) {
      if (this.log && value <= 0) continue;
      text += `${text ? "L" : "M"}${this.x(x).toFixed(1)} ${this.y(value).toFixed(1)}`;
    }
    return text;
  }

  ribbon(points) {
    const spot = (x, value) => `${this.x(x).toFixed(1)} ${Math.max(TOP, this.y(value)).toFixed(1)}`;
    const there = points.map(([x, , high]) => spot(x, high));
    const back = points.map(([x, low]) => spot(x, low)).reverse();
    return there.length ? `M${[...there, ...back].join("L")}Z` : "";
  }

  onMove(offset) {
    if (!this.x) return;
    const points = this.known.find((line) => line.length) ?? [];
    this.shared.point(nearest(points, this.back(offset)));
    if (this.from === undefined) return;
    const [left, right] = [this.from, offset].sort((a, b) => a - b);
    this.selection.removeAttribute("hidden");
    for (const [key, value] of Object.entries({ x: left, width: right - left, height: this.height - TOP - BOTTOM })) this.selection.setAttribute(key, value);
  }

  onDrop(offset) {
    const { from } = this;
    this.from = undefined;
    this.selection.setAttribute("hidden", "");
    if (from === undefined || !this.x || Math.abs(offset - from) < LEAST_DRAG) return;
    const [first, last] = [this.back(from), this.back(offset)].sort((a, b) => a - b);
    this.shared.set({ zoom: [Math.max(0, first), last] });
  }

  onKey(event) {
    const points = this.known?.find((line) => line.length) ?? [];
    if (!this.x || !points.length) return;
    const { shared } = this;
    const end = points.length - 1;
    const now = shared.cursor === null ? end : points.findIndex(([x]) => x >= shared.cursor);
    const step = Math.max(1, Math.round(end / 60));
    const moves = { ArrowLeft: now - step, ArrowRight: now + step, Home: 0, End: end };
    const [first, last] = this.domain(this.known);
    if (event.key in moves) shared.point(points[Math.min(end, Math.max(0, moves[event.key]))][0]);
    else if (event.key === "+") {
      const middle = shared.cursor ?? last;
      shared.set({ zoom: [Math.max(first, middle - (last - first) / 4), Math.min(last, middle + (last - first) / 4)] });
    } else if (event.key === "-") shared.set({ zoom: null });
    else return;
    event.preventDefault();
  }

  renderChoice() {
    if (!this.x) return;
    const { cursor, zoom } = this.shared;
    const inside = cursor !== null && (!zoom || (cursor >= zoom[0] && cursor <= zoom[1]));
    this.cross.toggleAttribute("hidden", !inside);
    if (inside) for (const [key, value] of Object.entries({ x1: this.x(cursor), x2: this.x(cursor), y1: TOP, y2: this.height - BOTTOM })) this.cross.setAttribute(key, value);
    const at = cursor ?? zoom?.[1] ?? Infinity;
    const chosen = this.known.map((points) => newest(points, at));
    if (!this.stacked) chosen.forEach((point, place) => this.renderDot(this.dots[place], point, zoom));
    this.renderReadout(chosen, at);
    const values = this.lines.map((line, place) => `${line.name ?? ""} ${this.format(chosen[place]?.[1])}`).join(", ");
    const label = `${this.title}: ${values}; arrow keys show other rounds, plus and minus zoom`;
    if (this.svg.getAttribute("aria-label") !== label) this.svg.setAttribute("aria-label", label);
  }

  renderDot(dot, point, zoom) {
    const shown = point && !this.shared.smoothing && (!this.log || point[1] > 0) && (!zoom || point[0] >= zoom[0]);
    dot.toggleAttribute("hidden", !shown);
    if (shown) { dot.setAttribute("cx", this.x(point[0])); dot.setAttribute("cy", this.y(point[1])); }
  }

  renderReadout(chosen, at) {
    const parts = this.lines.flatMap((line, place) => (chosen[place] || place === 0 ? [
      make("span", { class: "value" }, ...(line.name ? [make("span", { class: `key ${TONES[place]}` }), `${line.name} `] : []), make("b", {}, this.format(chosen[place]?.[1]))),
    ] : []));
    if (this.other && !this.stacked) {
      const there = this.linesOf(this.other).map((points) => newest(points, at)?.[1]).find((value) => value !== undefined);
      parts.push(make("span", { class: "value" }, make("span", { class: "key other" }), `${this.other.name} `, make("b", {}, this.format(there))));
    }
    const where = this.shared.cursor === null ? "" : this.shared.axis === "round" ? `round ${whole(Math.round(at))}` : seconds(at);
    this.readout.replaceChildren(make("span", { class: "where" }, where), ...parts);
  }
}

// Single long rounds would press a stack flat: they are cut off at the upper edge.
function withoutSpikes(totals) {
  const ordered = [...totals].sort((a, b) => a - b);
  const most = 2 * (ordered[Math.floor(0.9 * ordered.length)] ?? 0);
  return totals.map((total) => (most > 0 ? Math.min(total, most) : total));
}

// The newest point up to x; null if there is none.
export function newest(points, x) {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= x) low = middle + 1;
    else high = middle;
  }
  return low ? points[low - 1] : null;
}

function nearest(points, x) {
  const before = newest(points, x);
  const after = points[before ? points.indexOf(before) + 1 : 0];
  if (!before || !after) return (before ?? after)?.[0] ?? null;
  return x - before[0] < after[0] - x ? before[0] : after[0];
}

