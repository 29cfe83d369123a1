// The table of agents: sorted, filtered, and shown one page at a time, so that a thousand agents are as fast as ten.
import { byId, make, say } from "./dom.js";
import { read, write } from "./address.js";
import { NONE, number, seconds, whole } from "./format.js";

const PER_PAGE = 25;
export const WAITING_SECONDS = 1;
const names = new Intl.Collator("en", { numeric: true });

const STATES = {
  gone: { text: "gone", tone: "bad", order: 0 },
  lost: { text: "lost", tone: "warn", order: 1 },
  awaited: { text: "waited for", tone: "calm", order: 2 },
  connected: { text: "connected", tone: "good", order: 3 },
};

// The status of an agent in the table: gone and lost come before awaited.
export function stateOf(agent, run) {
  if (agent.phase === "gone" || agent.phase === "lost") return agent.phase;
  return agent.awaited && run.phase_seconds >= WAITING_SECONDS ? "awaited" : "connected";
}

export function pillOf(agent, run) {
  const { text, tone } = STATES[stateOf(agent, run)];
  return make("span", { class: `pill ${tone}` }, !run.live && tone === "good" ? "to the end" : text);
}

export function lagOf(agent, run) {
  if (agent.phase === "gone" || agent.last_round === null) return null;
  return Math.max(0, run.round - 1 - agent.last_round);
}

// optional: left out while it is unknown of all agents; wide: left out on a narrow screen.
const COLUMNS = [
  { key: "agent", name: "Agent", value: (agent) => agent.id },
  { key: "status", name: "Status", value: (agent, run) => STATES[stateOf(agent, run)].order },
  { key: "value", name: "Value error", value: (agent) => agent.value_error, text: (value) => number(value), note: "0 is exact, 1 is no better than a constant", optional: true },
  { key: "ratio", name: "\u00f7 alone", value: (agent) => agent.ratio, text: (value) => number(value), note: "value error over that of the better of LSTD alone and TD alone; above 1 it is worse than alone", optional: true, tone: (value) => (value > 1 ? "bad" : "") },
  { key: "lstd", name: "LSTD alone", value: (agent) => agent.lstd_alone, text: (value) => number(value), note: "value error of LSTD alone, from the same transitions", optional: true, wide: true },
  { key: "share", name: "Shared", value: (agent) => agent.shared_weight, text: (value) => number(value, 2), note: "shared weight: 0 is its own data alone, 1 the fleet's answer", optional: true, wide: true },
  { key: "gain", name: "Gain", value: (agent) => agent.mean_reward ?? agent.gain, text: (value, agent) => gainText(agent), note: "mean reward per step, and half the width of its 95 % interval", optional: true, wide: true },
  { key: "policy", name: "Policy", value: (agent) => agent.improved, text: (value) => (value ? "improved" : NONE), note: "improved: it holds a policy that passed a trial", optional: true },
  { key: "td", name: "TD error", value: (agent) => agent.td_error, text: (value) => number(value), note: "root mean square of its newest round, in units of reward" },
  { key: "arrives", name: "Arrives", value: (agent) => agent.arrives, text: (value) => seconds(value), note: "from the opening of a round to its gradient", optional: true, wide: true },
  { key: "lag", name: "Lag", value: lagOf, text: (value) => whole(value), note: "rounds that have closed since its last one", wide: true },
  { key: "reconnects", name: "Reconnects", value: (agent) => agent.reconnects, text: (value) => whole(value), optional: true, wide: true },
  { key: "rejected", name: "Rejected", value: (agent) => agent.rejected, text: (value) => whole(value), note: "messages that were rejected", optional: true, wide: true },
];

export function gainText(agent) {
  if (agent.mean_reward === null || agent.mean_reward === undefined) return number(agent.gain);
  return number(agent.mean_reward) + (agent.half_width === null || agent.half_width === undefined ? "" : ` \u00b1 ${number(agent.half_width, 2)}`);
}

function compare(one, other) {
  if (one === other) return 0;
  if (one === null || one === undefined) return 1;
  if (other === null || other === undefined) return -1;
  return typeof one === "string" ? names.compare(one, other) : one - other;
}

export class AgentsTable {
  constructor(open) {
    this.open = open;
    const said = read();
    this.key = COLUMNS.some((column) => column.key === said.get("sort")) ? said.get("sort") : "agent";
    this.descending = said.get("order") === "down";
    byId("filter").value = said.get("filter") ?? "";
    this.page = 0;
    this.shown = [];
    this.rows = [];
    this.columns = COLUMNS.filter((column) => !column.optional);
    this.head();
    byId("filter").addEventListener("input", () => { this.page = 0; write({ filter: byId("filter").value.trim() }); this.render(); });
    byId("page-before").addEventListener("click", () => { this.page -= 1; this.render(); });
    byId("page-after").addEventListener("click", () => { this.page += 1; this.render(); });
  }

  head() {
    byId("agents-head").replaceChildren(...this.columns.map((column) => {
      const button = make("button", { type: "button", ...(column.note ? { title: column.note } : {}) }, column.name);
      button.addEventListener("click", () => this.sortBy(column.key));
      return make("th", { scope: "col", "aria-sort": "none", ...(column.wide ? { class: "wide" } : {}) }, button);
    }));
    this.markSorting();
  }

  sortBy(key) {
    this.descending = this.key === key ? !this.descending : false;
    this.key = key;
    this.page = 0;
    write({ sort: key === "agent" ? null : key, order: this.descending ? "down" : null });
    this.markSorting();
    this.render();
  }

  markSorting() {
    [...byId("agents-head").children].forEach((head, place) => {
      const sorting = this.columns[place].key === this.key ? (this.descending ? "descending" : "ascending") : "none";
      head.setAttribute("aria-sort", sorting);
    });
  }

  update(agents, run, opened) {
    Object.assign(this, { agents, run, opened });
    const all = [...agents.values()];
    const isKnown = (column) => all.some((agent) => { const value = column.value(agent, run); return value !== null && value !== undefined; });
    // A column that has been shown stays, so that the table does not jump.
    const columns = COLUMNS.filter((column) => !column.optional || this.columns.includes(column) || isKnown(column));
    if (columns.length !== this.columns.length) {
      this.columns = columns;
      this.head();
    }
    this.render();
  }

  sorted() {
    const { value } = this.columns.find((column) => column.key === this.key) ?? COLUMNS[0];
    const wanted = byId("filter").value.trim().toLowerCase();
    const kept = [...this.agents.values()].filter((agent) => !wanted || agent.id.toLowerCase().includes(wanted) || agent.label?.toLowerCase().includes(wanted) || STATES[stateOf(agent, this.run)].text.includes(wanted));
    const keyed = kept.map((agent) => [value(agent, this.run), agent]);
    keyed.sort(([one, a], [other, b]) => {
      const unknown = [one, other].some((key) => key === null || key === undefined);
      const order = compare(one, other);
      return (this.descending && !unknown ? -order : order) || names.compare(a.id, b.id);
    });
    return keyed.map(([, agent]) => agent);
  }

  render() {
    if (!this.agents) return;
    const found = this.sorted();
    const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
    this.page = Math.min(Math.max(0, this.page), pages - 1);
    const first = this.page * PER_PAGE;
    const shown = found.slice(first, first + PER_PAGE);
    const body = byId("agents-body");
    while (this.rows.length > shown.length) this.rows.pop().root.remove();
    shown.forEach((agent, place) => this.fill(this.rows[place] ?? this.addRow(body), agent));
    const gone = [...this.agents.values()].filter((agent) => agent.phase === "gone").length;
    say(byId("agents-count"), `${whole(this.agents.size - gone)} ${this.run.live ? "connected" : "to the end"}${gone ? `, ${whole(gone)} gone` : ""}`);
    byId("page-now").parentElement.hidden = pages === 1;
    say(byId("page-now"), `${whole(first + 1)} to ${whole(first + shown.length)} of ${whole(found.length)}`);
    byId("page-before").disabled = this.page === 0;
    byId("page-after").disabled = this.page === pages - 1;
  }

  addRow(body) {
    const button = make("button", { type: "button" });
    const row = { root: make("tr"), button, label: make("span", { class: "label" }), cells: [], agent: null, state: "" };
    button.addEventListener("click", () => this.open(row.agent.id));
    body.append(row.root);
    this.rows.push(row);
    return row;
  }

  // A row is created once and then updated, so that it keeps focus and hovering.
  fill(row, agent) {
    row.agent = agent;
    if (row.cells.length !== this.columns.length) {
      row.cells = this.columns.map((column, place) => make(place ? "td" : "th", { ...(place ? {} : { scope: "row" }), ...(column.wide ? { class: "wide" } : {}) }));
      row.cells[0].append(row.button, row.label);
      row.root.replaceChildren(...row.cells);
      row.state = "";
    }
    say(row.button, agent.id);
    say(row.label, agent.label ?? "");
    const state = stateOf(agent, this.run);
    if (row.state !== state) { row.cells[1].replaceChildren(pillOf(agent, this.run)); row.state = state; }
    this.columns.slice(2).forEach((column, place) => {
      const value = column.value(agent, this.run);
      const cell = row.cells[place + 2];
      say(cell, value === null || value === undefined ? NONE : column.text(value, agent));
      if (column.tone && cell.dataset.tone !== column.tone(value)) cell.dataset.tone = column.tone(value);
    });
    row.root.toggleAttribute("data-open", agent.id === this.opened);
  }
}
