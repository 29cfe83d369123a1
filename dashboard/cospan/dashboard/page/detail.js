// The details of one agent. The address names it, as #agent=site-3, for bookmarks and the back button.
import { pillOf, lagOf, stateOf } from "./agents.js";
import { Chart } from "./chart.js";
import { byId, make, say } from "./dom.js";
import { NONE, number, seconds, whole } from "./format.js";

const MOST_POINTS = 240;

export const agentInAddress = () => {
  const found = /^#agent=(.+)$/.exec(location.hash);
  try { return found ? decodeURIComponent(found[1]) : null; } catch { return null; }
};

export class Detail {
  constructor(changed) {
    this.root = byId("detail");
    this.id = null;
    this.state = "";
    addEventListener("hashchange", () => { this.show(); changed(); });
    addEventListener("keydown", (event) => { if (event.key === "Escape" && this.id) this.close(); });
  }

  open(id) {
    this.opener = document.activeElement;
    location.hash = `agent=${encodeURIComponent(id)}`;
  }

  close() {
    history.pushState(null, "", location.pathname + location.search);
    dispatchEvent(new HashChangeEvent("hashchange"));
    if (this.opener?.isConnected) this.opener.focus();
  }

  show() {
    this.id = agentInAddress();
    this.root.hidden = !this.id;
    if (!this.id) return;
    const close = make("button", { type: "button", "aria-label": "Close the panel of this agent" }, "Close");
    close.addEventListener("click", () => this.close());
    this.title = make("h2", { id: "detail-title", tabindex: "-1" }, this.id);
    this.values = new Map();
    this.list = make("dl");
    this.points = [];
    this.state = "";
    this.pill = make("p");
    this.chart = new Chart({ title: "TD error since this panel was opened", lines: [{ column: "td_error" }], scale: "linear", height: 120, unknown: "This agent does not share its TD errors (cospan agent --share-td-error)." });
    this.chart.root.className = "chart";
    this.root.replaceChildren(make("div", { class: "card-head" }, this.title, close), this.pill, this.list, this.chart.root);
    if (this.opener) { this.title.focus({ preventScroll: true }); this.root.scrollIntoView({ block: "nearest" }); }
  }

  update(agents, run) {
    if (!this.id) return;
    const agent = agents.get(this.id);
    if (!agent) { this.list.replaceChildren(make("dt", {}, "No agent of this name has joined.")); return; }
    if (this.state !== stateOf(agent, run)) { this.state = stateOf(agent, run); this.pill.replaceChildren(pillOf(agent, run)); }
    if (agent.cause) this.say("Why it is gone", agent.cause);
    if (agent.gone_in_round !== null) this.say("Gone in round", whole(agent.gone_in_round));
    this.say("Last round that counted its gradient", whole(agent.last_round));
    this.say("Rounds that counted it", whole(agent.counted));
    this.say("Missed contributions", whole(agent.absent));
    this.say("Rounds since then", whole(lagOf(agent, run)));
    if (run.live) this.say("Last heard", agent.silent === null ? NONE : agent.silent ? `${seconds(agent.silent)} ago` : "just now");
    this.say("TD error (RMS, units of reward)", number(agent.td_error));
    if (agent.value_error !== null) this.say("Value error", number(agent.value_error));
    for (const [name, value] of Object.entries(agent.more ?? {})) this.say(name, typeof value === "number" ? number(value) : value);
    this.say("Came back after a broken stream", agent.reconnects === null ? NONE : `${whole(agent.reconnects)} times`);
    this.say("Messages that were rejected", whole(agent.rejected));
    this.say("Rounds in which it was an outlier", whole(agent.outliers));
    this.chart.root.hidden = !run.live;
    if (run.live) this.follow(agent);
  }

  say(name, text) {
    if (!this.values.has(name)) {
      const value = make("dd");
      this.values.set(name, value);
      this.list.append(make("dt", {}, name), value);
    }
    say(this.values.get(name), text ?? NONE);
  }

  follow(agent) {
    if (agent.td_error === null || agent.last_round === null || this.points.at(-1)?.[0] === agent.last_round) {
      if (!this.points.length) this.chart.update(["round", "td_error"], []);
      return;
    }
    this.points.push([agent.last_round, agent.td_error]);
    if (this.points.length > MOST_POINTS) this.points.shift();
    this.chart.update(["round", "td_error"], this.points);
  }
}
