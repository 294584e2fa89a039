// What the stock theme leaves out of a keyboard's reach, and what it does wrong on pages opened from a file.
"use strict";

(() => {
  // the search page reads every hit for an excerpt, which a browser forbids (with errors) on file:// pages
  if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
    DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  }

  // a formula that scrolls can be reached by Tab, one that does not is no stop on the way
  const formulas = () => {
    for (const formula of document.querySelectorAll(".bd-article .math > mjx-container")) {
      const box = formula.parentElement;
      const line = box.matches("span") && formula.closest("p, li, td, th, dd, summary, div");
      formula.classList.remove("lc-scrolls");
      if (line) formula.classList.toggle("lc-scrolls", formula.getBoundingClientRect().width > line.clientWidth + 1);
      for (const part of line ? [formula] : [formula, box]) {
        if (part.scrollWidth > part.clientWidth + 1) part.tabIndex = 0;
        else part.removeAttribute("tabindex");
      }
    }
  };
  let waiting = 0;
  const later = () => {
    clearTimeout(waiting);
    waiting = setTimeout(formulas, 100);
  };
  window.addEventListener("load", () => {
    const ready = window.MathJax?.startup?.promise ?? Promise.resolve();
    ready.then(formulas);
    window.addEventListener("resize", later);
    document.addEventListener("toggle", later, true);
  });
})();

// paper is white, and does not scroll: a dark page prints light, a formula that is too wide prints smaller
(() => {
  const PAPER = 38; // em of a formula that fit between the margins of A4, in a box (see print.css)
  const page = document.documentElement;
  let before;
  const natural = (formula) =>
    formula.getAttribute("width") === "full"
      ? parseFloat(formula.style.minWidth)
      : formula.firstElementChild.getBoundingClientRect().width / parseFloat(getComputedStyle(formula).fontSize);

  window.addEventListener("beforeprint", () => {
    before = page.dataset.theme;
    page.dataset.theme = "light";
    for (const formula of document.querySelectorAll("div.math > mjx-container")) {
      const fit = PAPER / natural(formula);
      if (fit < 1) formula.parentElement.style.setProperty("--lc-fit", fit.toFixed(3));
    }
  });
  window.addEventListener("afterprint", () => {
    page.dataset.theme = before;
  });
})();
