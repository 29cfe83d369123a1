// Each site against the better of LSTD alone and TD alone: one dot a site, in the order of their ratios.
import { draw, followWidth, make } from "./dom.js";
import { number, whole } from "./format.js";
import { boundsOf, logTicks, scaleOf } from "./scale.js";
import { helpButton, toolButton } from "./charts.js";
import { saveCsv, savePng } from "./download.js";

const HEIGHT = 190;
const LEFT = 52;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 30;
const UNKNOWN = "Unknown: this coordinator does not know the errors of the sites. cospan run knows them if the workload has true values; agents in groups tell theirs at the end.";
const HELP = "Value error of each site over that of the better of LSTD alone and TD alone, from the same transitions. Below the line sharing pays; a dot above it is a site that is worse than alone. Click a dot for the site.";

export class SitesChart {
  constructor(open, run) {
    this.open = open;
    this.readout = make("p", { class: "readout" });
    this.svg = draw("svg", { class: "plot sites", role: "img", tabindex: "0", "aria-label": "Sites against alone" });
    this.empty = make("p", { class: "empty" }, UNKNOWN);
    const name = () => `${run()?.workload || "cospan"}-${run()?.id ?? "run"}-sites`.replace(/[^\w.-]+/g, "-");
    const tools = make("div", { class: "tools" },
      toolButton("csv", "Save Sites against alone as CSV", () => saveCsv(name(), ["agent", "ratio"], this.sites.map((site) => [site.id, site.ratio]))),
      toolButton("png", "Save Sites against alone as PNG", () => savePng(name(), "Sites against alone", this.svg)),
      helpButton("Sites against alone", HELP, () => this.root));
    this.root = make("article", { class: "card chart", id: "chart-sites" }, make("div", { class: "card-head" }, make("h3", {}, "Sites against alone"), tools), this.readout, this.svg, this.empty);
    this.sites = [];
    this.chosen = null;
    this.svg.addEventListener("pointermove", (event) => this.choose(this.nearest(event.offsetX)));
    this.svg.addEventListener("pointerleave", () => this.choose(null));
    this.svg.addEventListener("blur", () => this.choose(null));
    this.svg.addEventListener("click", () => this.enter());
    this.svg.addEventListener("keydown", (event) => this.onKey(event));
    followWidth(this);
  }

  update(agents) {
    const known = [...agents.values()].filter((agent) => agent.ratio > 0);
    known.sort((one, other) => one.ratio - other.ratio);
    const text = known.map((agent) => `${agent.id} ${agent.ratio}`).join();
    if (text === this.text) return;
    Object.assign(this, { text, sites: known });
    if (this.chosen !== null && this.chosen >= known.length) this.chosen = null;
    this.render();
  }

  render() {
    const { sites } = this;
    this.svg.toggleAttribute("hidden", !sites.length);
    this.empty.hidden = sites.length > 0;
    const { width } = this;
    if (!sites.length || width <= 0) { this.readout.replaceChildren(); return; }
    const bounds = boundsOf([...sites.map((site) => site.ratio), 1], true);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.x = scaleOf(false, [-0.5, sites.length - 0.5], [LEFT, width - RIGHT]);
    this.y = scaleOf(true, bounds, [HEIGHT - BOTTOM, TOP]);
    const parts = logTicks(...bounds).flatMap((tick) => {
      const y = Math.round(this.y(tick)) + 0.5;
      return [draw("line", { class: tick === 1 ? "alone" : "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }), draw("text", { x: LEFT - 8, y: y + 3.5, "text-anchor": "end" }, number(tick))];
    });
    const one = Math.round(this.y(1)) + 0.5;
    parts.push(draw("line", { class: "alone", x1: LEFT, x2: width - RIGHT, y1: one, y2: one }));
    const dots = (chosen) => sites.map((site, place) => (chosen(site.ratio) ? `M${this.x(place).toFixed(1)} ${this.y(site.ratio).toFixed(1)}h0` : "")).join("");
    const size = sites.length > 200 ? "small" : "large";
    parts.push(draw("path", { class: `site ${size}`, d: dots((ratio) => ratio <= 1) }), draw("path", { class: `site worse ${size}`, d: dots((ratio) => ratio > 1) }));
    parts.push(draw("text", { x: LEFT, y: HEIGHT - 2 }, "value error / best alone"), draw("text", { x: width - RIGHT, y: HEIGHT - 2, "text-anchor": "end" }, "sites, best first"));
    this.ring = draw("circle", { class: "ring", r: 7, hidden: "" });
    this.svg.replaceChildren(...parts, this.ring);
    this.renderChoice();
  }

  nearest(offset) {
    if (!this.sites.length || !this.x) return null;
    const each = this.x(1) - this.x(0);
    return Math.min(this.sites.length - 1, Math.max(0, Math.round((offset - this.x(0)) / each)));
  }

  choose(place) {
    this.chosen = place;
    if (this.sites.length && this.x) this.renderChoice();
  }

  enter() {
    if (this.chosen !== null) this.open(this.sites[this.chosen].id);
  }

  onKey(event) {
    const end = this.sites.length - 1;
    const now = this.chosen ?? end;
    const moves = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: end };
    if (event.key === "Enter") this.enter();
    else if (event.key in moves && end >= 0) this.choose(Math.min(end, Math.max(0, moves[event.key])));
    else return;
    event.preventDefault();
  }

  renderChoice() {
    const site = this.chosen === null ? null : this.sites[this.chosen];
    this.ring.toggleAttribute("hidden", !site);
    const worse = this.sites.filter((each) => each.ratio > 1).length;
    if (site) {
      this.ring.setAttribute("cx", this.x(this.chosen));
      this.ring.setAttribute("cy", this.y(site.ratio));
      this.readout.replaceChildren(`${site.id} `, make("b", {}, `${number(site.ratio)} ×`));
    } else this.readout.replaceChildren(make("b", {}, whole(worse)), ` of ${whole(this.sites.length)} worse than alone`);
    const label = `Sites against alone: ${worse} of ${this.sites.length} are worse than alone${site ? `; ${site.id} has ${number(site.ratio)} times its error alone, Enter opens it` : "; arrow keys show single sites"}`;
    if (this.svg.getAttribute("aria-label") !== label) this.svg.setAttribute("aria-label", label);
  }
}

