// Keys of the review queue; without this script everything can be reached by links and forms.
"use strict";
(() => {
  const cards = () => [...document.querySelectorAll("[data-claim]")];
  let at = -1;
  const choose = (next) => {
    const all = cards();
    if (!all.length) return;
    all[at]?.classList.remove("chosen");
    at = Math.min(Math.max(next, 0), all.length - 1);
    all[at].classList.add("chosen");
    all[at].scrollIntoView({ block: "center" });
    all[at].querySelector(".claim a")?.focus({ preventScroll: true });
  };
  const opine = (verb) => {
    const form = cards()[at]?.querySelector("details.opinion");
    if (!form) return;
    form.open = true;
    form.querySelector(`input[value="${verb}"]`).checked = true;
    const name = form.querySelector("input[name=author]");
    (name.value ? form.querySelector("textarea") : name).focus();
  };
  const keys = {
    j: () => choose(at + 1), k: () => choose(at - 1),
    o: () => cards()[at]?.querySelector(".claim a")?.click(),
    a: () => opine("agree"), d: () => opine("dispute"), i: () => opine("invalidate"), c: () => opine("comment"),
  };
  if (location.pathname === "/queue") {
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
      if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
    });
  }
})();
