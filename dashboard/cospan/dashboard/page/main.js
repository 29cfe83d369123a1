// The page: takes frames, live or from the file itself, and shows them.
import { byId, say } from "./dom.js";
import { startTheme } from "./theme.js";
import { read, write } from "./address.js";
import { Shared } from "./chart.js";
import { makeCharts } from "./charts.js";
import { HeatMap } from "./heatmap.js";
import { SpectrumChart } from "./spectrum.js";
import { SitesChart } from "./sites.js";
import { Answers } from "./answers.js";
import { AgentsTable } from "./agents.js";
import { Detail } from "./detail.js";
import { Comparison } from "./compare.js";
import { showRun } from "./tiles.js";
import { whole } from "./format.js";

const AGENT = ["id", "phase", "awaited", "last_round", "td_error", "reconnects", "rejected", "silent", "counted", "absent", "outliers", "gone_in_round", "cause", "bounded", "improved", "arrives"];
const LEARNT = ["id", "label", "value_error", "lstd_alone", "td_alone", "gain", "mean_reward", "half_width", "shared_weight", "held_share", "learning_seconds", "held_out_error", "held_out_lstd_alone", "ratio"];
const NOTHING = Object.fromEntries(LEARNT.slice(1).map((name) => [name, null]));
const known = { run: null, series: { columns: [], points: [] }, agents: new Map() };
const said = read();
const shared = new Shared(showShared);
const run = () => known.run;
const charts = makeCharts(shared, run);
const detail = new Detail(() => render());
const open = (id) => detail.open(id);
const spectrum = new SpectrumChart();
const sites = new SitesChart(open, run);
const heatMap = new HeatMap();
const answers = new Answers(open);
const table = new AgentsTable(open);
const comparison = new Comparison(charts);
let source = null;
let paused = false;
const byKey = Object.fromEntries(charts.map((chart) => [chart.key, chart.root]));
byId("charts").append(byKey.value, byKey.subspace, sites.root, byKey.td, byKey.movement, spectrum.root, byKey.parts, byKey.time, byKey.contributors);

function render() {
  if (!known.run) return;
  showRun(known);
  table.update(known.agents, known.run, detail.id);
  sites.update(known.agents);
  detail.update(known.agents, known.run);
}

const named = (names, row) => Object.fromEntries(row.map((value, place) => [names[place], value]));

function take(frame) {
  if (frame.whole) known.agents.clear();
  known.run = frame.run;
  for (const row of frame.agents ?? []) known.agents.set(row[0], { ...NOTHING, ...known.agents.get(row[0]), ...named(AGENT, row) });
  for (const row of frame.learnt ?? []) if (known.agents.has(row[0])) Object.assign(known.agents.get(row[0]), named(LEARNT, row));
  const { series } = frame;
  known.series = { ...series, points: [...known.series.points.slice(0, series.start), ...series.points] };
  if (series.points.length) charts.forEach((chart) => chart.update(known.series.columns, known.series.points));
  if (frame.basis !== undefined) heatMap.update(frame.basis);
  if (frame.spectrum !== undefined) spectrum.update(frame.spectrum);
  answers.update(frame.answers);
  if (frame.answers) answers.showParts(known.series);
  comparison.update(known.run, { columns: known.series.columns, rows: known.series.points });
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
  source = new EventSource("events");
  source.addEventListener("frame", (event) => { notice(""); take(JSON.parse(event.data)); });
  source.addEventListener("over", () => {
    source.close();
    byId("pause").hidden = true;
    notice(known.run?.phase === "finished" ? "The run is over, and its coordinator has ended. This is its last state; cospan report makes a file of it." : "The coordinator has ended. This is its last state; reload the page when it is back.");
  });
  source.addEventListener("error", () => {
    if (paused) return;
    notice("The coordinator does not answer; trying again. The page shows its last state.");
    if (source.readyState === EventSource.CLOSED) setTimeout(() => { if (!paused) follow(); }, 2000);
  });
}

// While the page is paused it receives nothing; afterwards it is sent the whole state again.
function pause() {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  say(byId("pause"), paused ? "Resume" : "Pause");
  if (!paused) { notice(""); follow(); return; }
  source.close();
  notice("Paused. The run continues; the page shows it as it was.");
}

// Axis, smoothing and zoom: in the controls, and in the address.
function showShared() {
  const { axis, smoothing, zoom } = shared;
  for (const button of document.querySelectorAll("#axis button")) button.setAttribute("aria-pressed", String(button.value === axis));
  byId("smoothing").value = smoothing;
  byId("unzoom").hidden = !zoom;
  write({ axis: axis === "round" ? null : axis, smooth: smoothing ? String(smoothing) : null, zoom: zoom ? zoom.map((x) => Number(x.toPrecision(6))).join("~") : null });
}

function startControls() {
  for (const button of document.querySelectorAll("#axis button")) button.addEventListener("click", () => shared.set({ axis: button.value }));
  byId("smoothing").addEventListener("input", (event) => shared.set({ smoothing: Number(event.target.value) }));
  byId("unzoom").addEventListener("click", () => shared.set({ zoom: null }));
  byId("pause").addEventListener("click", pause);
  const zoom = (said.get("zoom") ?? "").split("~").map(Number);
  const smoothing = Number(said.get("smooth"));
  shared.set({ axis: said.get("axis") === "elapsed" ? "elapsed" : "round" });
  shared.set({ smoothing: smoothing > 0 && smoothing < 1 ? smoothing : 0, zoom: zoom.length === 2 && zoom[0] < zoom[1] ? zoom : null });
}

startTheme(() => heatMap.render());
startControls();
detail.show();
const inFile = byId("data");
if (inFile) {
  const frame = JSON.parse(inFile.textContent);
  detail.histories = frame.histories ?? {};
  byId("pause").hidden = true;
  take(frame);
  if (frame.other) comparison.show({ name: frame.other.run.name ?? `run ${frame.other.run.id}`, columns: frame.other.series.columns, rows: frame.other.series.points, run: frame.other.run });
  explain(frame);
} else follow();
