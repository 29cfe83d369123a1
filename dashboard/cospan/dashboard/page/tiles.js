// The head of the page: name and phase of the run, and the tiles.
import { byId, make, say } from "./dom.js";
import { compact, number, seconds, whole, NONE } from "./format.js";
import { WAITING_SECONDS } from "./agents.js";

const PHASES = {
  waiting: ["waiting for agents", "warn"],
  collecting: ["running", "good"],
  closing: ["running", "good"],
  finished: ["finished", "calm"],
  draining: ["going down, to be continued", "warn"],
  stored: ["not finished", "warn"],
};
const STEADY_SECONDS = 1;
const tiles = new Map();

// A text that changes with every frame is written once a second, so that it can be read.
function tile(name, value, more = "", { steady = false, title = "" } = {}) {
  if (!tiles.has(name)) {
    const parts = { value: make("dd", { class: "value" }), more: make("dd", { class: "more" }), due: 0 };
    byId("tiles").append(make("div", { class: "tile" }, make("dt", {}, name), parts.value, parts.more));
    tiles.set(name, parts);
  }
  const parts = tiles.get(name);
  const now = performance.now();
  if (steady && now < parts.due) return;
  parts.due = now + 1000 * STEADY_SECONDS;
  say(parts.value, value);
  say(parts.more, more);
  if (parts.more.title !== title) parts.more.title = title;
}

function waitedFor(run, present) {
  const { count, names } = run.waiting;
  if (!run.live) return [NONE, "the run is over"];
  if (run.phase === "waiting") return [whole(Math.max(0, run.agents - present)), "agents that have not joined"];
  // Rounds that close within a second wait for every agent in turn; flickering names would be of no use.
  if (!count || run.phase_seconds < WAITING_SECONDS) return ["none", "no round takes a second"];
  const more = count > names.length ? ` and ${whole(count - names.length)} more` : "";
  const since = `for ${seconds(Math.round(run.phase_seconds))}`;
  return [count === 1 ? names[0] : `${whole(count)} agents`, count === 1 ? since : `${since}: ${names.join(", ")}${more}`];
}

function againstAlone(errors, agents) {
  if (errors.value === null) return "unknown";
  const ratios = [...agents.values()].map((agent) => agent.ratio).filter((ratio) => ratio > 0).sort((a, b) => a - b);
  return ratios.length ? `median; ${number((ratios[(ratios.length - 1) >> 1] + ratios[ratios.length >> 1]) / 2)} × alone` : "median over agents";
}

// 100 % means all of it, not nearly all.
function percentage(share) {
  return share < 1 && share >= 0.9995 ? "> 99.9 %" : `${(100 * share).toFixed(1)} %`;
}

function showPhase(run) {
  const [text, tone] = PHASES[run.phase] ?? [run.phase, ""];
  const pill = byId("phase");
  say(pill, run.finish_text ?? text);
  const classes = `pill ${run.finish_cause && run.finish_cause !== "rounds-reached" && run.finish_cause !== "stopped" ? "bad" : tone}`;
  if (pill.className !== classes) pill.className = classes;
  const title = run.workload || "Cospan";
  say(byId("title"), title);
  say(byId("subtitle"), `run ${run.id} · ${whole(run.agents)} agents · d = ${run.feature_dim}, r = ${run.rank} · ${run.steps_per_round} steps a round · ${run.aggregation}${run.privacy ? ` · ${run.privacy}` : ""}`);
  if (document.title !== `${title} · Cospan`) document.title = `${title} · Cospan`;
}

export function showRun({ run, agents, series }) {
  showPhase(run);
  const times = run.round_times;
  const steady = { steady: run.live };
  const gone = [...agents.values()].filter((agent) => agent.phase === "gone").length;
  const left = run.rounds && run.rounds_per_second > 0 && run.live ? ` · ${seconds((run.rounds - run.round) / run.rounds_per_second)} left` : "";
  tile("Round", whole(run.round), run.rounds ? `of ${whole(run.rounds)}${left}` : "no end is set", steady);
  tile("Rounds per second", run.rounds_per_second ? number(run.rounds_per_second, run.rounds_per_second < 100 ? 2 : 3) : NONE, times ? `p50 ${seconds(times[0])}, p99 ${seconds(times[1])}` : "", steady);
  const [value, more] = waitedFor(run, agents.size);
  tile("Waiting for", value, more, { ...steady, title: more });
  tile("Agents", whole(agents.size - gone), gone ? `${whole(gone)} gone` : run.live ? "none is gone" : "all to the end");
  tile("Value error", number(run.errors.value), againstAlone(run.errors, agents), steady);
  const { outside } = run.errors;
  tile("Held by the basis", outside === null || outside === undefined ? NONE : percentage(1 - outside), outside === null || outside === undefined ? "unknown" : "of the true values", steady);
  showProgress(run);
  say(byId("foot"), `Seed ${run.seed} · head update ${run.head_update} · participation ${run.participation}${run.incarnation ? ` · incarnation ${run.incarnation}, durable up to round ${whole(run.durable)}` : ""} · a point of the charts is ${series.stride === 1 ? "one round" : `${compact(series.stride)} rounds`}`);
}

function showProgress(run) {
  const bar = byId("progress");
  bar.hidden = !run.rounds;
  const done = run.rounds ? Math.min(100, Math.floor((100 * run.round) / run.rounds)) : 0;
  if (bar.getAttribute("aria-valuenow") === String(done)) return;
  bar.setAttribute("aria-valuenow", done);
  bar.firstElementChild.style.width = `${done}%`;
}
