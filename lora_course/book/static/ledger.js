/* The ledger's filter: hides the rows of claims that do not match; without this script the whole table shows. */
(() => {
  "use strict";
  const enliven = (root) => {
    const form = root.querySelector("form");
    const count = root.querySelector(".lc-ledger-count");
    const rows = [...root.querySelectorAll("tbody tr")];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const fields = [...form.querySelectorAll("[data-axis]")];

    const show = () => {
      const words = fields.find((f) => f.dataset.axis === "words").value.toLowerCase().split(/\s+/);
      const chosen = fields.filter((f) => f.dataset.axis !== "words" && f.value);
      let shown = 0;
      rows.forEach((row, i) => {
        const fits =
          chosen.every((f) => row.dataset[f.dataset.axis] === f.value) && words.every((w) => texts[i].includes(w));
        row.hidden = !fits;
        shown += fits;
      });
      count.textContent = (shown === rows.length ? "" : shown + " of ") + rows.length + " claims";
    };

    form.addEventListener("input", show);
    form.addEventListener("reset", () => setTimeout(show));
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    show(); // a browser may have kept the fields of an earlier visit
  };

  const start = () => document.querySelectorAll(".lc-ledger").forEach(enliven);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
