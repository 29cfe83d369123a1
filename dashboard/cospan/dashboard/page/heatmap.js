// The basis as an image: one row per direction, one column per feature; blue below zero, orange above.
import { byId, make, say } from "./dom.js";
import { number, whole } from "./format.js";

function colours() {
  const style = getComputedStyle(document.documentElement);
  const parse = (name) => style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));
  return { zero: parse("--sunken"), below: parse("--accent"), above: parse("--third") };
}

export class HeatMap {
  constructor() {
    this.canvas = byId("basis");
    this.basis = undefined;
    this.chosen = null;
    this.canvas.addEventListener("pointermove", (event) => this.onPointer(event));
    this.canvas.addEventListener("pointerleave", () => this.choose(null));
    this.canvas.addEventListener("blur", () => this.choose(null));
    this.canvas.addEventListener("keydown", (event) => this.onKey(event));
  }

  update(basis) {
    this.basis = basis;
    this.render();
  }

  render() {
    const basis = this.basis;
    if (basis === undefined) return;
    this.canvas.hidden = !basis;
    if (!basis) { say(byId("basis-text"), "This run has no stored basis."); return; }
    const features = basis.cells.length;
    const directions = basis.cells[0].length;
    const { zero, below, above } = colours();
    const most = Math.max(...basis.cells.flat().map(Math.abs)) || 1;
    const image = new ImageData(features, directions);
    basis.cells.forEach((row, feature) => row.forEach((value, direction) => {
      const place = direction * features + feature;
      const share = Math.sqrt(Math.abs(value) / most);
      const end = value < 0 ? below : above;
      for (let part = 0; part < 3; part += 1) image.data[place * 4 + part] = zero[part] + share * (end[part] - zero[part]);
      image.data[place * 4 + 3] = 255;
    }));
    this.canvas.width = features;
    this.canvas.height = directions;
    this.canvas.getContext("2d").putImageData(image, 0, 0);
    this.most = most;
    const each = basis.row_stride * basis.column_stride > 1 ? ` A cell is the largest of ${basis.row_stride} × ${basis.column_stride} entries.` : "";
    say(byId("basis-text"), `${whole(basis.rows)} features (across) × ${basis.columns} directions (down); entries up to ±${number(most)}, blue below zero, orange above.${each}`);
    this.choose(this.chosen);
  }

  onPointer(event) {
    if (!this.basis) return;
    const feature = Math.floor((event.offsetX / this.canvas.clientWidth) * this.basis.cells.length);
    const direction = Math.floor((event.offsetY / this.canvas.clientHeight) * this.basis.cells[0].length);
    this.choose([feature, direction]);
  }

  onKey(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.basis || !(event.key in moves)) return;
    event.preventDefault();
    const [row, column] = this.chosen ?? [0, 0];
    this.choose([row + moves[event.key][0], column + moves[event.key][1]]);
  }

  choose(cell) {
    const cells = this.basis?.cells;
    this.chosen = cell && cells ? [Math.min(cells.length - 1, Math.max(0, cell[0])), Math.min(cells[0].length - 1, Math.max(0, cell[1]))] : null;
    const readout = byId("basis-readout");
    if (!this.chosen) { readout.replaceChildren(); return; }
    const [row, column] = this.chosen;
    readout.replaceChildren(`feature ${row * this.basis.row_stride}, direction ${column * this.basis.column_stride}: `, make("b", {}, number(cells[row][column])));
  }
}
