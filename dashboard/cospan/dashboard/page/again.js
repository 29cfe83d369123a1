// Loads the page again when one of its files was lost on the way, as happens while a network changes: five times
// in a row at most. It is no module, so that it needs no other file and comes first.
(() => {
  const KEY = "cospan-reloads";
  const CALM_MS = 10_000;
  let isLost = false;
  addEventListener("error", ({ target }) => {
    if (isLost || !["SCRIPT", "LINK"].includes(target.tagName) || target.rel === "icon") return;
    isLost = true;
    const reloads = Number(sessionStorage.getItem(KEY));
    if (reloads < 5) {
      sessionStorage.setItem(KEY, String(reloads + 1));
      setTimeout(() => location.reload(), 250 * 2 ** reloads);
    } else {
      const say = () => { document.getElementById("subtitle").textContent = "a file of this page could not be loaded; reload the page"; };
      if (document.readyState === "loading") addEventListener("DOMContentLoaded", say); else say();
    }
  }, true);
  setTimeout(() => sessionStorage.removeItem(KEY), CALM_MS);
})();
