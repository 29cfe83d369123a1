// The details of one agent. The address names it, as #agent=site-3, for bookmarks and the back button.
import { agentInAddress, write } from "./address.js";
import { gainText, pillOf, lagOf, stateOf } from "./agents.js";
import { Chart, Shared } from "./chart.js";
import { byId, make, say } from "./dom.js";
import { NONE, number, seconds, whole } from "./format.js";

const AGAIN_SECONDS = 2;

export class Detail {
  // histories: of a report; null where they are asked of the dashboard.
  constructor(changed) {
    this.root = byId("detail");
    this.id = null;
    this.state = "";
    this.histories = null;
    this.changed = changed;
    addEventListener("hashchange", () => { this.show(); changed(); });
    addEventListener("popstate", () => { this.show(); changed(); });
    addEventListener("keydown", (event) => { if (event.key === "Escape" && this.id) this.close(); });
  }

  open(id) {
    this.opener = document.activeElement;
    write({ agent: id }, { step: true });
    this.show();
    this.changed();
  }

  close() {
    write({ agent: null }, { step: true });
    this.show();
    this.changed();
    if (this.opener?.isConnected) this.opener.focus();
  }

  show() {
    const id = agentInAddress();
    if (id !== null && id === this.id) return;
    this.id = id;
    this.root.hidden = !this.id;
    if (!this.id) return;
    const close = make("button", { type: "button", "aria-label": "Close the panel of this agent" }, "Close");
    close.addEventListener("click", () => this.close());
    this.title = make("h2", { id: "detail-title", tabindex: "-1" }, this.id);
    this.label = make("p", { class: "muted small" });
    this.values = new Map();
    this.list = make("dl");
    Object.assign(this, { state: "", due: 0, asked: false });
    this.pill = make("p");
    const shared = new Shared();
    this.charts = [
      new Chart({ key: "agent-value", title: "Value error, and alone", log: true, height: 150, unknown: "Unknown: the true values are not known here.",
        lines: [{ column: "value_error", name: "fleet" }, { column: "lstd_alone", name: "LSTD alone" }, { column: "td_alone", name: "TD alone" }] }, shared),
      new Chart({ key: "agent-td", title: "TD error", height: 130, unknown: "This agent does not share its TD errors (cospan agent --share-td-error).", lines: [{ column: "td_error" }] }, shared),
    ];
    for (const chart of this.charts) chart.root.className = "chart";
    this.root.replaceChildren(make("div", { class: "card-head" }, this.title, close), this.label, this.pill, this.list, ...this.charts.map((chart) => chart.root));
    if (this.opener) { this.title.focus({ preventScroll: true }); this.root.scrollIntoView({ block: "nearest" }); }
  }

  update(agents, run) {
    if (!this.id) return;
    const agent = agents.get(this.id);
    if (!agent) { this.list.replaceChildren(make("dt", {}, "No agent of this name has joined.")); this.values.clear(); return; }
    if (this.state !== stateOf(agent, run)) { this.state = stateOf(agent, run); this.pill.replaceChildren(pillOf(agent, run)); }
    say(this.label, agent.label ?? "");
    if (agent.cause) this.say("Why it is gone", agent.cause);
    if (agent.gone_in_round !== null) this.say("Gone in round", whole(agent.gone_in_round));
    this.sayLearnt(agent);
    this.sayMembership(agent, run);
    this.follow(run);
  }

  sayLearnt(agent) {
    if (agent.value_error !== null) {
      this.say("Value error", number(agent.value_error));
      this.say("LSTD alone, TD alone", `${number(agent.lstd_alone)}, ${number(agent.td_alone)}`);
      this.say("Error over the best alone", agent.ratio === null ? NONE : `${number(agent.ratio)}${agent.ratio > 1 ? ", worse than alone" : ""}`);
    }
    if (agent.held_out_error !== null) this.say("Held-out error, of LSTD alone", `${number(agent.held_out_error)}, ${number(agent.held_out_lstd_alone)}`);
    if (agent.shared_weight !== null) this.say("Shared weight", number(agent.shared_weight));
    if (agent.held_share !== null) this.say("Held by the basis", number(agent.held_share, 4));
    if (agent.gain !== null) this.say("Gain, learnt", number(agent.gain));
    if (agent.mean_reward !== null) this.say("Mean reward, 95 % interval", gainText(agent));
    this.say("TD error (RMS, units of reward)", number(agent.td_error));
    if (agent.improved) this.say("Policy", "improved: it passed a trial");
    if (agent.bounded) this.say("Head", "has reached head_radius: its values are wrong");
  }

  sayMembership(agent, run) {
    this.say("Last round that counted its gradient", whole(agent.last_round));
    this.say("Rounds that counted it", whole(agent.counted));
    this.say("Rounds since then", whole(lagOf(agent, run)));
    if (run.live) this.say("Last heard", agent.silent === null ? NONE : agent.silent ? `${seconds(agent.silent)} ago` : "just now");
    if (agent.arrives !== null) this.say("Its gradient arrives after", seconds(agent.arrives));
    if (agent.learning_seconds !== null) this.say("of that it learns", seconds(agent.learning_seconds));
    if (agent.absent !== null) this.say("Missed contributions", whole(agent.absent));
    if (agent.reconnects !== null) this.say("Reconnects", whole(agent.reconnects));
    if (agent.rejected !== null) this.say("Messages that were rejected", whole(agent.rejected));
    if (agent.outliers !== null) this.say("Rounds in which it was an outlier", whole(agent.outliers));
  }

  say(name, text) {
    if (!this.values.has(name)) {
      const value = make("dd");
      this.values.set(name, value);
      this.list.append(make("dt", {}, name), value);
    }
    say(this.values.get(name), text ?? NONE);
  }

  // The history of its numbers: of the report, or asked of the dashboard, which has it from the agent's first round.
  async follow(run) {
    if (this.histories) { this.draw(this.histories[this.id]); return; }
    const now = performance.now();
    if (now < this.due || this.asked || (this.over && this.due)) return;
    Object.assign(this, { asked: true, due: now + 1000 * AGAIN_SECONDS, over: !run.live });
    const { id } = this;
    try {
      const answer = await fetch(`history?id=${encodeURIComponent(id)}`);
      if (answer.ok && id === this.id) this.draw(await answer.json());
    } catch { /* the dashboard has ended; the notice says so */ }
    this.asked = false;
  }

  draw(history) {
    for (const chart of this.charts) chart.update(history?.columns ?? [], history?.points ?? []);
  }
}
