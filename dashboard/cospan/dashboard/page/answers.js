// The answers to an operator's questions, one card each; agents that they name open their panels.
import { byId, make, say, withCode } from "./dom.js";
import { TONES } from "./chart.js";
import { seconds } from "./format.js";

const PARTS = [["agents", "agents"], ["network", "network"], ["aggregation", "aggregation"], ["disk", "disk"]];
const NEWEST = 20;

export class Answers {
  constructor(open) {
    this.open = open;
    this.cards = new Map();
    this.bar = make("div", { class: "parts", role: "img", hidden: "" });
  }

  update(answers) {
    if (!answers?.length) return;
    byId("answers").parentElement.hidden = false;
    for (const answer of answers) this.fill(this.cards.get(answer.key) ?? this.add(answer), answer);
  }

  add({ key, question }) {
    const card = { verdict: make("p", { class: "verdict" }), text: make("div", { class: "sentences" }), names: make("p", { class: "names" }) };
    card.root = make("article", { class: "card answer", id: `answer-${key}` }, make("h3", {}, question), card.verdict, ...(key === "time" ? [this.bar] : []), card.text, card.names);
    byId("answers").append(card.root);
    this.cards.set(key, card);
    return card;
  }

  // Only what has changed is written: the same text would trigger screen readers, and buttons would lose their focus.
  fill(card, { key, verdict, tone, sentences, agents }) {
    say(card.verdict, verdict);
    if (card.verdict.dataset.tone !== tone) card.verdict.dataset.tone = tone;
    if (card.said !== sentences.join("\n")) {
      card.said = sentences.join("\n");
      const items = sentences.map((each) => make(key === "next" ? "li" : "p", {}, ...withCode(each)));
      card.text.replaceChildren(...(key === "next" ? [make("ul", {}, ...items)] : items));
    }
    if (card.named === agents.join()) return;
    card.named = agents.join();
    card.names.replaceChildren(...agents.map((name) => {
      const button = make("button", { type: "button", class: "chip" }, name);
      button.addEventListener("click", () => this.open(name));
      return button;
    }));
  }

  // The parts of the newest rounds as one bar, beside the sentence on them.
  showParts({ columns, points }) {
    const found = PARTS.map(([column, name], place) => {
      const at = columns.indexOf(column);
      const values = points.slice(-NEWEST).map((row) => row[at]).filter((value) => value !== null && value !== undefined);
      return { name, tone: TONES[place], seconds: values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : 0 };
    });
    const total = found.reduce((sum, part) => sum + part.seconds, 0);
    this.bar.hidden = !(total > 0);
    if (!(total > 0)) return;
    if (!this.bar.children.length) this.bar.append(...found.map((part) => make("span", { class: part.tone })));
    found.forEach((part, place) => { this.bar.children[place].style.flexGrow = String(Math.round((1000 * part.seconds) / total)); });
    const label = found.map((part) => `${part.name} ${seconds(part.seconds)}`).join(", ");
    if (this.bar.getAttribute("aria-label") !== label) this.bar.setAttribute("aria-label", label);
  }
}
