// The charts of the page: what each shows, in words too; and the buttons of their heads.
import { draw, make, say } from "./dom.js";
import { read, write } from "./address.js";
import { seconds, whole } from "./format.js";
import { Chart } from "./chart.js";
import { saveCsv, savePng } from "./download.js";

const TRUTH = "Unknown: this coordinator does not know the true values. cospan run knows them if the workload has them.";

export const CHARTS = [
  { key: "value", title: "Value error", unit: "median; shaded: middle half of the agents", log: true, unknown: TRUTH,
    lines: [{ column: "value_error", name: "fleet" }, { column: "lstd_alone", name: "LSTD alone" }, { column: "td_alone", name: "TD alone" }], band: ["value_low", "value_high"],
    help: "How wrong the agents' values are: 0 is exact, 1 is no better than a constant. LSTD alone and TD alone learn from the same transitions without the fleet, so the fleet pays where its line is below both." },
  { key: "subspace", title: "Outside the basis", unit: "0 is exact", log: true, unknown: "Unknown: this workload has no true subspace, or this coordinator does not know it.",
    lines: [{ column: "outside", name: "share of the values" }, { column: "subspace_error", name: "sine of the largest angle" }],
    help: "Share of the variance of the agents' true values that the basis does not hold, median over the agents; and the sine of the largest angle to the true subspace. The angle weighs directions that hardly any value needs like all others, so it may stay near 1 while nearly nothing lies outside." },
  { key: "movement", title: "Movement of the basis", unit: "sine of the largest angle", log: true,
    lines: [{ column: "movement" }],
    help: "How far one round turns the basis. It falls while a run converges; a jump means new curvatures, or an agent that came, left or changed. Directions that the fleet has switched off go on turning, so it need not come to rest." },
  { key: "td", title: "TD error", unit: "median; shaded: middle half of the agents", log: false, unknown: "Unknown: no agent shares its TD errors (cospan agent --share-td-error).",
    lines: [{ column: "td_error" }], band: ["td_low", "td_high"],
    help: "Root mean square TD error of the agents' newest rounds, in units of their rewards. It needs no true values, but it falls only to the noise of the rewards, not to 0." },
  { key: "parts", title: "Where a round's time goes", unit: "seconds a round", stacked: true, format: seconds, unknown: "Unknown: files do not hold it; the dashboard of a live run does.",
    lines: [{ column: "agents", name: "agents" }, { column: "network", name: "network" }, { column: "aggregation", name: "aggregation" }, { column: "disk", name: "disk" }],
    help: "Agents: the slowest agent's learning. Network: the rest of the time until all gradients are there, so messages, and processes that wait for a processor; where agents do not tell how long they learn, agents include it. Aggregation: the coordinator's arithmetic. Disk: an announcement that waits for the round before to be stored. Spikes are cut off." },
  { key: "time", title: "Time of a round", unit: "of the newest 500 rounds", log: true, format: seconds,
    lines: [{ column: "p50", name: "p50" }, { column: "p99", name: "p99" }],
    help: "Median and 99th percentile. A high p99 over a low p50 is one slow agent or machine." },
  { key: "contributors", title: "Contributors", unit: "agents whose gradients counted", format: whole,
    lines: [{ column: "contributors" }],
    help: "Agents whose gradients counted in a round; a point of several rounds shows the fewest." },
];

const ICONS = {
  help: "M5.6 6a2.4 2.4 0 1 1 3.4 2.2c-.7.4-1 .8-1 1.6M8 12.2v.1",
  csv: "M8 2.5v8m-3-3 3 3 3-3M3 13.5h10",
  png: "M2.5 3.5h11v9h-11zM5 7.2v.1M3 12l3.5-3.5L9 11l2-2 2.5 2.5",
};

function icon(name) {
  return draw("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, draw("path", { d: ICONS[name] }));
}

// A button that shows an explanation below the head of a card.
export function helpButton(title, text, card) {
  const help = make("p", { class: "help", hidden: "" }, text);
  const button = make("button", { type: "button", class: "tool", "aria-expanded": "false", "aria-label": `What ${title} shows`, title: "What this shows" }, icon("help"));
  button.addEventListener("click", () => {
    help.hidden = !help.hidden;
    button.setAttribute("aria-expanded", String(!help.hidden));
    if (!help.parentElement) card().querySelector(".card-head").after(help);
  });
  return button;
}

export function toolButton(name, label, act) {
  const button = make("button", { type: "button", class: "tool", "aria-label": label, title: label }, icon(name));
  button.addEventListener("click", act);
  return button;
}

function scaleButton(chart) {
  const button = make("button", { type: "button", class: "tool text" });
  const show = () => {
    const [is, other] = chart.log ? ["log", "linear"] : ["linear", "log"];
    say(button, is);
    const label = `${is} scale of ${chart.title}; switch to ${other}`;
    button.setAttribute("aria-label", label);
    button.title = label;
  };
  button.addEventListener("click", () => {
    chart.log = !chart.log;
    write({ [`scale.${chart.key}`]: chart.log === chart.atFirst ? null : chart.log ? "log" : "linear" });
    show();
    chart.render();
  });
  show();
  return button;
}

const fileName = (run, chart) => `${run()?.workload || "cospan"}-${run()?.id ?? "run"}-${chart.key}`.replace(/[^\w.-]+/g, "-");

function saveNumbers(chart, run) {
  const columns = ["round", "elapsed", ...chart.lines.map((line) => line.column), ...(chart.band ?? [])];
  const rowsOf = (data, name) => {
    const places = columns.map((column) => data.columns.indexOf(column));
    return data.rows.map((row) => [name, ...places.map((place) => (place < 0 ? null : row[place]))]);
  };
  const rows = rowsOf(chart.data, run()?.id ?? "");
  if (chart.other) rows.push(...rowsOf(chart.other, chart.other.name));
  saveCsv(fileName(run, chart), ["run", ...columns], rows);
}

function keysOf(chart) {
  const keys = chart.readout.querySelectorAll(".key");
  return chart.lines.filter((line) => line.name).map((line, place) => ({ name: line.name, element: keys[place] })).filter((key) => key.element);
}

// All charts, with their scales as the address has them; `run` gives the run for names of files.
export function makeCharts(shared, run) {
  const said = read();
  return CHARTS.map((definition) => {
    const scale = said.get(`scale.${definition.key}`);
    const log = scale ? scale === "log" : Boolean(definition.log);
    const chart = new Chart({ ...definition, log, tools: (self) => {
      self.atFirst = Boolean(definition.log);
      const tools = make("div", { class: "tools" },
        ...(definition.stacked ? [] : [scaleButton(self)]),
        toolButton("csv", `Save ${definition.title} as CSV`, () => saveNumbers(self, run)),
        toolButton("png", `Save ${definition.title} as PNG`, () => savePng(fileName(run, self), definition.title, self.svg, keysOf(self))),
        helpButton(definition.title, definition.help, () => self.root));
      return [tools];
    } }, shared);
    return chart;
  });
}
