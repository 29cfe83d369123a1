// The spectrum of the heads: their share along each direction.
import { draw, make, say } from "./dom.js";
import { linearTicks } from "./chart.js";
import { number } from "./format.js";

const HEIGHT = 160;
const LEFT = 52;
const BOTTOM = 24;
const UNKNOWN = "Unknown in this run: its method learns no head covariance, and agents send no second moments of their heads.";

export class SpectrumChart {
  constructor() {
    this.readout = make("p", { class: "readout" });
    this.svg = draw("svg", { class: "plot spectrum", role: "img", "aria-label": "Spectrum of the heads" });
    this.sentence = make("p", { class: "small muted" });
    this.empty = make("p", { class: "empty" }, UNKNOWN);
    this.root = make("article", { class: "card chart" },
      make("div", { class: "card-head" }, make("h2", {}, "Spectrum of the heads"), this.readout), this.svg, this.sentence, this.empty);
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
    const down = HEIGHT - BOTTOM - 12;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const top = Math.ceil(shares[0] * 10) / 10;
    const parts = linearTicks(0, top * 100, 4).flatMap((tick) => {
      const y = Math.round(12 + (1 - tick / 100 / top) * down) + 0.5;
      return [draw("line", { class: "grid", x1: LEFT, x2: width - 12, y1: y, y2: y }),
        draw("text", { x: LEFT - 8, y: y + 3.5, "text-anchor": "end" }, `${number(tick)} %`)];
    });
    const every = Math.ceil(shares.length / 16);
    shares.forEach((share, place) => {
      const tall = Math.max(1, (share / top) * down);
      const idle = place >= inUse;
      const bar = draw("rect", { class: idle ? "bar idle" : "bar", x: LEFT + across * (place + 0.14), width: across * 0.72, y: 12 + down - tall, height: tall, rx: Math.min(3, across * 0.2) });
      bar.append(draw("title", {}, `direction ${place + 1}: ${number(share * 100)} %${idle ? ", not in use" : ""}`));
      parts.push(bar);
      if (place % every === 0) parts.push(draw("text", { x: LEFT + across * (place + 0.5), y: HEIGHT - 8, "text-anchor": "middle" }, String(place + 1)));
    });
    this.svg.replaceChildren(...parts);
    this.readout.replaceChildren(`${source === "covariance" ? "head covariance" : "second moments"}: `, make("b", {}, `${inUse} of ${shares.length}`), " in use");
    this.svg.setAttribute("aria-label", `Spectrum of the heads: ${shares.map((share) => `${number(share * 100)} %`).join(", ")}`);
    say(this.sentence, sentence);
  }
}
