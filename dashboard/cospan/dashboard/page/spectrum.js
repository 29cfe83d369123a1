// The spectrum of the heads: their share along each direction.
import { draw, make, withCode } from "./dom.js";
import { linearTicks, scaleOf } from "./scale.js";
import { helpButton, toolButton } from "./charts.js";
import { saveCsv, savePng } from "./download.js";
import { number } from "./format.js";

const HEIGHT = 160;
const HELP = "How much of the agents' heads lies along each direction of the basis, largest first. With practical it is the head covariance, which maximises the evidence of the fleet: the scale is logarithmic, and directions below the dotted line, a ten-thousandth of the largest, are switched off. With other methods it is the second moment of the heads.";
const LEFT = 52;
const BOTTOM = 24;
const IN_USE = 1e-4;
const UNKNOWN = "Unknown in this run: its method learns no head covariance, and agents send no second moments of their heads.";

export class SpectrumChart {
  constructor() {
    this.readout = make("p", { class: "readout" });
    this.svg = draw("svg", { class: "plot spectrum", role: "img", "aria-label": "Spectrum of the heads" });
    this.sentence = make("p", { class: "small muted" });
    this.empty = make("p", { class: "empty" }, UNKNOWN);
    const tools = make("div", { class: "tools" },
      toolButton("csv", "Save Spectrum of the heads as CSV", () => saveCsv("cospan-spectrum", ["direction", "share", "in_use"], (this.spectrum?.shares ?? []).map((share, place) => [place + 1, share, place < this.spectrum.in_use]))),
      toolButton("png", "Save Spectrum of the heads as PNG", () => savePng("cospan-spectrum", "Spectrum of the heads", this.svg)),
      helpButton("Spectrum of the heads", HELP, () => this.root));
    this.root = make("article", { class: "card chart", id: "chart-spectrum" },
      make("div", { class: "card-head" }, make("h3", {}, "Spectrum of the heads"), tools), this.readout, this.svg, this.sentence, this.empty);
    new ResizeObserver(() => this.render()).observe(this.root);
    this.spectrum = null;
  }

  update(spectrum) {
    this.spectrum = spectrum;
    this.render();
  }

  render() {
    const known = Boolean(this.spectrum);
    this.svg.toggleAttribute("hidden", !known);
    this.sentence.hidden = !known;
    this.empty.hidden = known;
    const width = Math.round(this.svg.clientWidth);
    if (!known || width <= 0) return;
    const { shares, sentence, in_use: inUse, source } = this.spectrum;
    const across = (width - LEFT - 12) / shares.length;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    // What is in use differs by powers of ten; second moments of heads differ less, and show even shares at once.
    const log = source === "covariance";
    const top = log ? 1 : Math.ceil(shares[0] * 10) / 10;
    const floor = log ? shares[0] * IN_USE * 0.1 : 0;
    const height = scaleOf(log, [floor, top], [HEIGHT - BOTTOM, 12]);
    const line = (share, kind) => {
      const y = Math.round(height(share)) + 0.5;
      return draw("line", { class: kind, x1: LEFT, x2: width - 12, y1: y, y2: y });
    };
    const ticks = log ? [1, 0.1, 0.01, 1e-3, 1e-4, 1e-5].filter((tick) => tick >= floor) : linearTicks(0, top * 100, 4).map((tick) => tick / 100);
    const parts = ticks.flatMap((tick) => [line(tick, "grid"), draw("text", { x: LEFT - 8, y: Math.round(height(tick)) + 4, "text-anchor": "end" }, `${number(tick * 100)} %`)]);
    if (log) parts.push(line(shares[0] * IN_USE, "limit"));
    const every = Math.ceil(shares.length / 16);
    shares.forEach((share, place) => {
      const tall = Math.max(2, HEIGHT - BOTTOM - height(Math.max(share, floor)));
      const idle = place >= inUse;
      const bar = draw("rect", { class: idle ? "bar idle" : "bar", x: LEFT + across * (place + 0.14), width: across * 0.72, y: HEIGHT - BOTTOM - tall, height: tall, rx: Math.min(3, across * 0.2) });
      bar.append(draw("title", {}, `direction ${place + 1}: ${number(share * 100)} %${idle ? ", not in use" : ""}`));
      parts.push(bar);
      if (place % every === 0) parts.push(draw("text", { x: LEFT + across * (place + 0.5), y: HEIGHT - 8, "text-anchor": "middle" }, String(place + 1)));
    });
    this.svg.replaceChildren(...parts);
    this.readout.replaceChildren(`${source === "covariance" ? "head covariance" : "second moments"}: `, make("b", {}, `${inUse} of ${shares.length}`), " in use");
    this.svg.setAttribute("aria-label", `Spectrum of the heads: ${shares.map((share) => `${number(share * 100)} %`).join(", ")}`);
    if (this.sentence.textContent !== sentence) this.sentence.replaceChildren(...withCode(sentence));
  }
}
