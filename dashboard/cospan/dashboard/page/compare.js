// A second run in the charts: from a report of two runs, or from a rounds.csv that the user picks; it is read here only.
import { byId, make, say } from "./dom.js";
import { number, seconds, whole } from "./format.js";

const MOST_POINTS = 720;
const WINDOW = 500;
const MOST_BYTES = 256 * 2 ** 20;
const COLUMNS = ["round", "elapsed", "movement", "subspace_error", "value_error", "lstd_alone", "td_alone", "p50", "p99", "contributors"];
const NAMES = { movement: "basis_movement", subspace_error: "subspace_error", value_error: "value_error", lstd_alone: "lstd_alone_error", td_alone: "td_alone_error", contributors: "contributors" };
const NEEDED = ["round", "seconds", "contributors", "basis_movement"];

// The rounds of a rounds.csv in the columns of the charts. Throws a sentence where it is none.
export function readRounds(text) {
  const lines = text.split(/\r?\n/).filter(Boolean);
  const head = (lines.shift() ?? "").split(",");
  const lacking = NEEDED.filter((name) => !head.includes(name));
  if (lacking.length) throw new Error(`it lacks the column ${lacking[0]}; pick the rounds.csv of a run folder`);
  const place = Object.fromEntries(head.map((name, at) => [name, at]));
  const every = Math.max(1, Math.ceil(lines.length / MOST_POINTS));
  const rows = [];
  const durations = [];
  let elapsed = 0;
  let sum = 0;
  const newest = {};
  lines.forEach((line, number) => {
    const cells = line.split(",");
    const value = (name) => (cells[place[name]] ? Number(cells[place[name]]) : null);
    const took = value("seconds");
    if (took === null || !Number.isFinite(took)) throw new Error(`row ${number + 2} has no time of its round; pick the rounds.csv of a run folder`);
    elapsed += took;
    durations.push(took);
    if (durations.length > WINDOW) durations.shift();
    sum += value("basis_movement") ?? 0;
    for (const [column, name] of Object.entries(NAMES)) if (Number.isFinite(value(name)) && value(name) !== null) newest[column] = value(name);
    if ((number + 1) % every && number + 1 !== lines.length) return;
    const ordered = [...durations].sort((a, b) => a - b);
    const share = (part) => ordered[Math.max(0, Math.ceil(part * ordered.length) - 1)];
    const known = { ...newest, round: value("round"), elapsed, movement: sum / (number % every + 1), p50: share(0.5), p99: share(0.99) };
    rows.push(COLUMNS.map((column) => known[column] ?? null));
    sum = 0;
    for (const column of ["subspace_error", "value_error", "lstd_alone", "td_alone"]) delete newest[column];
  });
  if (!rows.length) throw new Error("it holds no round yet; pick the rounds.csv of a run folder");
  return { columns: COLUMNS, rows };
}

const newestOf = ({ columns, rows }, column) => {
  const at = columns.indexOf(column);
  for (let row = rows.length - 1; row >= 0 && at >= 0; row -= 1) if (rows[row][at] !== null && rows[row][at] !== undefined) return rows[row][at];
  return null;
};

const LAST = [["Rounds", "round", (value) => (value === null ? number(null) : whole(value + 1))], ["Seconds of rounds", "elapsed", seconds], ["Value error", "value_error", number], ["LSTD alone", "lstd_alone", number], ["TD alone", "td_alone", number], ["Outside the basis", "outside", number], ["Angle to the true subspace", "subspace_error", number], ["Median time of a round", "p50", seconds]];
const SETTINGS = [["Workload", "workload"], ["Agents", "agents"], ["Seed", "seed"], ["Features d", "feature_dim"], ["Rank r", "rank"], ["Steps a round", "steps_per_round"], ["Head update", "head_update"], ["Aggregation", "aggregation"], ["Participation", "participation"]];

export class Comparison {
  constructor(charts) {
    this.charts = charts;
    this.other = null;
    byId("compare").addEventListener("change", (event) => { this.pick(event.target); });
    byId("compare-end").addEventListener("click", () => this.show(null));
  }

  async pick(input) {
    const file = input.files[0];
    if (!file) return;
    try {
      if (file.size > MOST_BYTES) throw new Error("it has more than 256 MiB; compare with cospan report RUN RUN");
      this.show({ name: file.name, ...readRounds(await file.text()), run: null });
    } catch (failure) {
      this.show(null);
      this.complain(`${file.name} cannot be compared: ${failure.message}.`);
    }
    input.value = "";
  }

  complain(text) {
    say(byId("compare-problem"), text);
    byId("compare-problem").hidden = !text;
  }

  // other: {name, columns, rows, run}; null for none.
  show(other) {
    this.other = other;
    this.complain("");
    this.charts.forEach((chart) => chart.compare(other));
    byId("comparison").hidden = !other;
    byId("compare-end").hidden = !other;
    if (other) say(byId("compare-end"), `Without ${other.name}`);
    this.render();
  }

  update(run, data) {
    Object.assign(this, { run, data });
    if (this.other) this.render();
  }

  render() {
    const { other, run, data } = this;
    if (!other || !run) return;
    const rows = LAST.map(([name, column, format]) => [name, format(newestOf(data, column)), format(newestOf(other, column))]);
    if (other.run) for (const [name, key] of SETTINGS) if (run[key] !== other.run[key]) rows.push([name, String(run[key]), String(other.run[key])]);
    const text = JSON.stringify(rows);
    if (text === this.text) return;
    this.text = text;
    byId("comparison-head").replaceChildren(make("td", {}), make("th", { scope: "col" }, run.name ?? `run ${run.id}`), make("th", { scope: "col" }, other.name));
    byId("comparison-body").replaceChildren(...rows.map(([name, here, there]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, here), make("td", {}, there))));
  }
}
