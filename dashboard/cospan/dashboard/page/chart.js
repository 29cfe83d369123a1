// One line chart: axes, units, and the values under the pointer or the arrow keys.
import { draw, make } from "./dom.js";
import { compact, number, whole } from "./format.js";

const HEIGHT = 190;
const LEFT = 52;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 30;

export function linearTicks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? 10 * power;
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step) ticks.push(Number(tick.toPrecision(12)));
  return ticks;
}

export function logTicks(low, high) {
  const decades = Math.log10(high) - Math.log10(low);
  const every = Math.max(1, Math.round(decades / 4));
  const whole = ticksOf(low, high, [1], every);
  return whole.length > 2 ? whole : ticksOf(low, high, decades > 1.5 ? [1, 3] : [1, 2, 5], 1);
}

function ticksOf(low, high, factors, every) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    if (power % every !== 0) continue;
    for (const factor of factors) {
      const tick = factor * 10 ** power;
      if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
    }
  }
  return ticks;
}

export class Chart {
  // lines: [{column, name}]; scale: "log" or "linear"; format: how a value is written.
  constructor({ title, unit, lines, scale, format = number, unknown, height = HEIGHT }) {
    Object.assign(this, { title, unit, lines, scale, format, unknown, height });
    this.points = [];
    this.chosen = null;
    this.readout = make("p", { class: "readout" });
    this.svg = draw("svg", { class: "plot", role: "img", tabindex: "0", "aria-label": title });
    this.empty = make("p", { class: "empty" }, unknown ?? "Nothing yet.");
    this.grid = draw("g");
    this.paths = lines.map((_, place) => draw("path", { class: place ? "line second" : "line" }));
    this.dots = lines.map((_, place) => draw("circle", { class: place ? "dot second" : "dot", r: 4.5 }));
    this.cross = draw("line", { class: "cross" });
    this.svg.append(this.grid, this.cross, ...this.paths, ...this.dots);
    this.root = make("article", { class: "card chart" },
      make("div", { class: "card-head" }, make("h2", {}, title), this.readout), this.svg, this.empty);
    this.svg.addEventListener("pointermove", (event) => this.choose(this.nearest(event.offsetX)));
    this.svg.addEventListener("pointerleave", () => this.choose(null));
    this.svg.addEventListener("blur", () => this.choose(null));
    this.svg.addEventListener("keydown", (event) => this.onKey(event));
    new ResizeObserver(() => this.render()).observe(this.root);
  }

  // rows: arrays; the first column is the round.
  update(columns, rows) {
    const places = this.lines.map((line) => columns.indexOf(line.column));
    this.points = rows
      .map((row) => ({ x: row[0], values: places.map((place) => row[place]) }))
      .filter((point) => point.values.some((value) => value !== null && value !== undefined));
    if (this.chosen !== null && this.chosen >= this.points.length) this.chosen = null;
    this.render();
  }

  bounds() {
    const shown = this.points.flatMap((point) => point.values).filter((value) => value !== null && (this.scale !== "log" || value > 0));
    if (!shown.length) return null;
    let low = Math.min(...shown);
    let high = Math.max(...shown);
    if (this.scale === "log") {
      if (high / low < 4) { low /= 1.6; high *= 1.6; }
      return [low / 1.15, high * 1.15];
    }
    low = Math.min(0, low);
    return [low, high <= low ? low + 1 : high + (high - low) * 0.12];
  }

  render() {
    const width = Math.round(this.svg.clientWidth || this.root.clientWidth - 32);
    const bounds = this.bounds();
    this.svg.toggleAttribute("hidden", !bounds);
    this.empty.hidden = Boolean(bounds);
    if (!bounds) { this.readout.replaceChildren(); return; }
    if (width <= 0) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.svg.setAttribute("height", this.height);
    const [low, high] = bounds;
    const first = this.points[0].x;
    const last = Math.max(this.points.at(-1).x, first + 1);
    const across = width - LEFT - RIGHT;
    const down = this.height - TOP - BOTTOM;
    this.x = (value) => LEFT + ((value - first) / (last - first)) * across;
    const spot = this.scale === "log" ? (value) => Math.log(value / low) / Math.log(high / low) : (value) => (value - low) / (high - low);
    this.y = (value) => TOP + (1 - spot(value)) * down;
    this.renderGrid(width, low, high, first, last);
    this.paths.forEach((path, place) => path.setAttribute("d", this.path(place)));
    this.renderChoice();
  }

  renderGrid(width, low, high, first, last) {
    const ticks = this.scale === "log" ? logTicks(low, high) : linearTicks(low, high, 4);
    const bottom = this.height - BOTTOM;
    const parts = [];
    for (const tick of ticks) {
      const y = Math.round(this.y(tick)) + 0.5;
      parts.push(draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
      parts.push(draw("text", { x: LEFT - 8, y: y + 3.5, "text-anchor": "end" }, this.format(tick)));
    }
    for (const tick of linearTicks(first, last, width < 360 ? 3 : 5)) {
      if (!Number.isInteger(tick)) continue;
      parts.push(draw("text", { x: this.x(tick), y: bottom + 15, "text-anchor": "middle" }, compact(tick)));
    }
    parts.push(draw("text", { x: width - RIGHT, y: this.height - 2, "text-anchor": "end" }, "round"));
    if (this.unit) parts.push(draw("text", { x: LEFT, y: this.height - 2 }, this.unit));
    parts.push(draw("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: bottom + 0.5, y2: bottom + 0.5 }));
    this.grid.replaceChildren(...parts);
  }

  path(place) {
    let text = "";
    for (const point of this.points) {
      const value = point.values[place];
      if (value === null || value === undefined || (this.scale === "log" && value <= 0)) continue;
      text += `${text ? "L" : "M"}${this.x(point.x).toFixed(1)} ${this.y(value).toFixed(1)}`;
    }
    return text;
  }

  nearest(offset) {
    let best = null;
    this.points.forEach((point, place) => {
      if (best === null || Math.abs(this.x(point.x) - offset) < Math.abs(this.x(this.points[best].x) - offset)) best = place;
    });
    return best;
  }

  onKey(event) {
    const end = this.points.length - 1;
    const now = this.chosen ?? end;
    const step = Math.max(1, Math.round(end / 60));
    const moves = { ArrowLeft: now - step, ArrowRight: now + step, Home: 0, End: end };
    if (end < 0 || !(event.key in moves)) return;
    event.preventDefault();
    this.choose(Math.min(end, Math.max(0, moves[event.key])));
  }

  choose(place) {
    this.chosen = place;
    if (this.points.length && this.x) this.renderChoice();
  }

  renderChoice() {
    const point = this.points[this.chosen ?? this.points.length - 1];
    this.cross.toggleAttribute("hidden", this.chosen === null);
    if (this.chosen !== null) {
      for (const [key, value] of Object.entries({ x1: this.x(point.x), x2: this.x(point.x), y1: TOP, y2: this.height - BOTTOM })) this.cross.setAttribute(key, value);
    }
    this.dots.forEach((dot, place) => {
      const value = point.values[place];
      const shown = value !== null && value !== undefined && (this.scale !== "log" || value > 0);
      dot.toggleAttribute("hidden", !shown);
      if (shown) { dot.setAttribute("cx", this.x(point.x)); dot.setAttribute("cy", this.y(value)); }
    });
    const parts = this.lines.flatMap((line, place) => [
      ...(line.name ? [make("span", { class: place ? "key second" : "key" }), `${line.name} `] : []),
      make("b", {}, this.format(point.values[place])),
    ]);
    this.readout.replaceChildren(...(this.chosen === null ? [] : [`round ${whole(point.x)}  `]), ...parts);
    const values = this.lines.map((line, place) => `${line.name ?? ""} ${this.format(point.values[place])}`).join(", ");
    this.svg.setAttribute("aria-label", `${this.title}: ${values} in round ${point.x}; arrow keys show other rounds`);
  }
}

