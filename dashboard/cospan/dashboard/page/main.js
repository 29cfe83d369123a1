// The page: takes frames, live or from the file itself, and shows them.
import { byId, make, say } from "./dom.js";
import { startTheme } from "./theme.js";
import { compact, number, seconds, whole, NONE } from "./format.js";
import { Chart } from "./chart.js";
import { HeatMap } from "./heatmap.js";
import { SpectrumChart } from "./spectrum.js";
import { AgentsTable, WAITING_SECONDS } from "./agents.js";
import { Detail } from "./detail.js";

const AGENT = ["id", "phase", "awaited", "last_round", "td_error", "reconnects", "rejected", "silent", "counted", "absent", "outliers", "gone_in_round", "cause", "value_error", "more"];
const PHASES = {
  waiting: ["waiting for agents", "warn"],
  collecting: ["running", "good"],
  closing: ["running", "good"],
  finished: ["finished", "calm"],
  draining: ["going down, to be continued", "warn"],
  stored: ["not finished", "warn"],
};
const known = { run: null, series: { columns: [], points: [] }, agents: new Map() };
const charts = [
  new Chart({ title: "Movement of the basis", unit: "sine of the angle", lines: [{ column: "movement" }], scale: "log" }),
  new Chart({ title: "Angle to the true subspace", unit: "sine of the largest angle", lines: [{ column: "subspace_error" }], scale: "log", unknown: "Unknown: this coordinator does not have the true subspace. cospan run provides it if the workload has it." }),
  new Chart({ title: "Value error", unit: "median over the agents", lines: [{ column: "value_error" }], scale: "log", unknown: "Unknown: this coordinator does not have the true values. cospan run provides them if the workload has them." }),
  new Chart({ title: "Time of a round", unit: "the newest 500 rounds", lines: [{ column: "p50", name: "p50" }, { column: "p99", name: "p99" }], scale: "log", format: seconds }),
  new Chart({ title: "Contributors", unit: "agents whose gradients counted", lines: [{ column: "contributors" }], scale: "linear", format: whole }),
];
const spectrum = new SpectrumChart();
const heatMap = new HeatMap();
byId("charts").append(...charts.map((chart) => chart.root), spectrum.root);
const detail = new Detail(() => render());
const table = new AgentsTable((id) => detail.open(id));
const tiles = new Map();

function tile(name, value, more = "", title = "") {
  if (!tiles.has(name)) {
    const parts = { value: make("dd", { class: "value" }), more: make("dd", { class: "more" }) };
    byId("tiles").append(make("div", { class: "tile" }, make("dt", {}, name), parts.value, parts.more));
    tiles.set(name, parts);
  }
  const parts = tiles.get(name);
  say(parts.value, value);
  say(parts.more, more);
  if (parts.more.title !== title) parts.more.title = title;
}

function waitedFor(run) {
  const { count, names } = run.waiting;
  if (!run.live) return [NONE, "the run is over"];
  if (run.phase === "waiting") return [whole(Math.max(0, run.agents - known.agents.size)), "agents that have not joined"];
  // Rounds that close within a second wait for every agent in turn; flickering names would be of no use.
  if (!count || run.phase_seconds < WAITING_SECONDS) return ["none", "a round takes below 1 s"];
  const more = count > names.length ? ` and ${whole(count - names.length)} more` : "";
  const since = `for ${seconds(run.phase_seconds)}`;
  return [count === 1 ? names[0] : `${whole(count)} agents`, count === 1 ? since : `${since}: ${names.join(", ")}${more}`];
}

function renderRun(run) {
  const [text, tone] = PHASES[run.phase] ?? [run.phase, ""];
  const pill = byId("phase");
  say(pill, run.finish_text ?? text);
  const classes = `pill ${run.finish_cause && run.finish_cause !== "rounds-reached" && run.finish_cause !== "stopped" ? "bad" : tone}`;
  if (pill.className !== classes) pill.className = classes;
  const title = run.workload || "Cospan";
  say(byId("title"), title);
  say(byId("subtitle"), `run ${run.id} · ${whole(run.agents)} agents · d = ${run.feature_dim}, r = ${run.rank} · ${run.steps_per_round} steps a round · ${run.aggregation}`);
  if (document.title !== `${title} · Cospan`) document.title = `${title} · Cospan`;
  const times = run.round_times;
  const gone = [...known.agents.values()].filter((agent) => agent.phase === "gone").length;
  const left = run.rounds && run.rounds_per_second > 0 && run.live ? ` · ${seconds((run.rounds - run.round) / run.rounds_per_second)} left` : "";
  tile("Round", whole(run.round), run.rounds ? `of ${whole(run.rounds)}${left}` : "no end is set");
  tile("Rounds per second", run.rounds_per_second ? number(run.rounds_per_second) : NONE, times ? `p50 ${seconds(times[0])}, p99 ${seconds(times[1])}` : "");
  const [value, more] = waitedFor(run);
  tile("Waiting for", value, more, more);
  tile("Agents", whole(known.agents.size - gone), gone ? `${whole(gone)} gone` : run.live ? "none is gone" : "all to the end");
  tile("Angle to the truth", number(run.errors.subspace), run.errors.subspace === null ? "unknown" : "sine; 0 is exact");
  tile("Value error", number(run.errors.value), run.errors.value === null ? "unknown" : "median over agents");
  const bar = byId("progress");
  bar.hidden = !run.rounds;
  const done = run.rounds ? Math.min(100, Math.floor((100 * run.round) / run.rounds)) : 0;
  if (bar.getAttribute("aria-valuenow") !== String(done)) { bar.setAttribute("aria-valuenow", done); bar.firstElementChild.style.width = `${done}%`; }
  say(byId("foot"), `Seed ${run.seed} · head update ${run.head_update} · participation ${run.participation}${run.incarnation ? ` · incarnation ${run.incarnation}, durable up to round ${whole(run.durable)}` : ""} · a point of the charts is ${known.series.stride === 1 ? "one round" : `${compact(known.series.stride)} rounds`}`);
}

function render() {
  if (!known.run) return;
  renderRun(known.run);
  table.update(known.agents, known.run, detail.id);
  detail.update(known.agents, known.run);
}

function take(frame) {
  if (frame.whole) known.agents.clear();
  known.run = frame.run;
  for (const row of frame.agents ?? []) known.agents.set(row[0], { value_error: null, ...Object.fromEntries(row.map((value, place) => [AGENT[place], value])) });
  const { series } = frame;
  known.series = { ...series, points: [...known.series.points.slice(0, series.start), ...series.points] };
  if (series.points.length) charts.forEach((chart) => chart.update(known.series.columns, known.series.points));
  if (frame.basis !== undefined) heatMap.update(frame.basis);
  if (frame.spectrum !== undefined) spectrum.update(frame.spectrum);
  render();
  document.documentElement.dataset.round = frame.run.round;
}

function explain(frame) {
  const left = frame.agents_left_out ? ` ${whole(frame.agents_left_out)} agents are not listed.` : "";
  const { message } = frame.run;
  byId("notice").className = "notice calm";
  notice(`${message[0].toUpperCase()}${message.slice(1)}.${left}`);
}

function notice(text) {
  byId("notice").hidden = !text;
  say(byId("notice"), text);
}

function follow() {
  const source = new EventSource("events");
  source.addEventListener("frame", (event) => { notice(""); take(JSON.parse(event.data)); });
  source.addEventListener("over", () => {
    source.close();
    notice(known.run?.phase === "finished" ? "The run is over, and its coordinator has ended. This is its last state; cospan report makes a file of it." : "The coordinator has ended. This is its last state; reload the page when it is back.");
  });
  source.addEventListener("error", () => {
    notice("The coordinator does not answer; trying again. The page shows its last state.");
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 2000);
  });
}

startTheme(() => heatMap.render());
detail.show();
const inFile = byId("data");
if (inFile) {
  take(JSON.parse(inFile.textContent));
  explain(JSON.parse(inFile.textContent));
} else follow();
