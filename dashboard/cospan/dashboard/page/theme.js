// Dark, light, or what the system says; kept in this browser where it lets us.
import { byId, say } from "./dom.js";

const THEMES = ["automatic", "light", "dark"];
const KEPT = "cospan-theme";

function kept() {
  try { return localStorage.getItem(KEPT); } catch { return null; }
}

function keep(theme) {
  try { localStorage.setItem(KEPT, theme); } catch { /* the choice lasts as long as the page */ }
}

export function startTheme(changed) {
  let theme = THEMES.includes(kept()) ? kept() : "automatic";
  const apply = () => {
    if (theme === "automatic") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    say(byId("theme"), `Theme: ${theme}`);
    changed();
  };
  byId("theme").addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    keep(theme);
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  apply();
}
