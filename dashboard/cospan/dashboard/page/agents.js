// The table of agents: sorted, filtered, and shown one page at a time, so that a thousand agents are as fast as ten.
import { byId, make, say } from "./dom.js";
import { NONE, number, whole } from "./format.js";

const PER_PAGE = 25;
export const WAITING_SECONDS = 1;
const names = new Intl.Collator("en", { numeric: true });

const STATES = {
  gone: { text: "gone", tone: "bad", order: 0 },
  lost: { text: "lost", tone: "warn", order: 1 },
  awaited: { text: "waited for", tone: "calm", order: 2 },
  connected: { text: "here", tone: "good", order: 3 },
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

const COLUMNS = [
  { name: "Agent", value: (agent) => agent.id },
  { name: "Status", value: (agent, run) => STATES[stateOf(agent, run)].order },
  { name: "Last round", value: (agent) => agent.last_round, text: (value) => whole(value) },
  { name: "Lag", value: lagOf, text: (value) => whole(value), note: "rounds that have closed since its last one" },
  { name: "TD error", value: (agent) => agent.td_error, text: (value) => number(value), note: "root mean square of its round, in units of reward" },
  { name: "Value error", value: (agent) => agent.value_error, text: (value) => number(value), optional: true },
  { name: "Reconnects", value: (agent) => agent.reconnects, text: (value) => whole(value) },
  { name: "Rejected", value: (agent) => agent.rejected, text: (value) => whole(value), note: "messages that were rejected" },
];

function compare(one, other) {
  if (one === other) return 0;
  if (one === null || one === undefined) return 1;
  if (other === null || other === undefined) return -1;
  return typeof one === "string" ? names.compare(one, other) : one - other;
}

export class AgentsTable {
  constructor(open) {
    this.open = open;
    this.sortedBy = 0;
    this.descending = false;
    this.page = 0;
    this.shown = [];
    this.rows = [];
    this.columns = COLUMNS.filter((column) => !column.optional);
    this.head();
    byId("filter").addEventListener("input", () => { this.page = 0; this.render(); });
    byId("page-before").addEventListener("click", () => { this.page -= 1; this.render(); });
    byId("page-after").addEventListener("click", () => { this.page += 1; this.render(); });
  }

  head() {
    byId("agents-head").replaceChildren(...this.columns.map((column, place) => {
      const button = make("button", { type: "button", ...(column.note ? { title: column.note } : {}) }, column.name);
      button.addEventListener("click", () => this.sortBy(place));
      return make("th", { scope: "col", "aria-sort": "none" }, button);
    }));
    this.markSorting();
  }

  sortBy(place) {
    this.descending = this.sortedBy === place ? !this.descending : false;
    this.sortedBy = place;
    this.page = 0;
    this.markSorting();
    this.render();
  }

  markSorting() {
    [...byId("agents-head").children].forEach((head, place) => {
      const sorting = place === this.sortedBy ? (this.descending ? "descending" : "ascending") : "none";
      head.setAttribute("aria-sort", sorting);
    });
  }

  update(agents, run, opened) {
    Object.assign(this, { agents, run, opened });
    const known = [...agents.values()].some((agent) => agent.value_error !== null);
    const columns = COLUMNS.filter((column) => !column.optional || known);
    if (columns.length !== this.columns.length) {
      const by = this.columns[this.sortedBy];
      this.columns = columns;
      this.sortedBy = Math.max(0, columns.indexOf(by));
      this.head();
    }
    this.render();
  }

  sorted() {
    const { value } = this.columns[this.sortedBy];
    const wanted = byId("filter").value.trim().toLowerCase();
    const kept = [...this.agents.values()].filter((agent) => !wanted || agent.id.toLowerCase().includes(wanted) || STATES[stateOf(agent, this.run)].text.includes(wanted));
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
    say(byId("agents-count"), `${whole(this.agents.size - gone)} ${this.run.live ? "here" : "to the end"}${gone ? `, ${whole(gone)} gone` : ""}`);
    byId("page-now").parentElement.hidden = pages === 1;
    say(byId("page-now"), `${whole(first + 1)} to ${whole(first + shown.length)} of ${whole(found.length)}`);
    byId("page-before").disabled = this.page === 0;
    byId("page-after").disabled = this.page === pages - 1;
  }

  addRow(body) {
    const button = make("button", { type: "button" });
    const row = { root: make("tr"), button, cells: [], agent: null, state: "" };
    button.addEventListener("click", () => this.open(row.agent.id));
    body.append(row.root);
    this.rows.push(row);
    return row;
  }

  // A row is created once and then updated, so that it keeps focus and hovering.
  fill(row, agent) {
    row.agent = agent;
    if (row.cells.length !== this.columns.length) {
      row.cells = this.columns.map((_, place) => make(place ? "td" : "th", place ? {} : { scope: "row" }));
      row.cells[0].append(row.button);
      row.root.replaceChildren(...row.cells);
      row.state = "";
    }
    say(row.button, agent.id);
    const state = stateOf(agent, this.run);
    if (row.state !== state) { row.cells[1].replaceChildren(pillOf(agent, this.run)); row.state = state; }
    this.columns.slice(2).forEach((column, place) => {
      const value = column.value(agent, this.run);
      const cell = row.cells[place + 2];
      say(cell, value === null || value === undefined ? NONE : column.text(value));
    });
    row.root.toggleAttribute("data-open", agent.id === this.opened);
  }
}
