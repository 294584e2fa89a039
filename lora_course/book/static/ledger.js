/* The ledger's filter and order: hides the rows of claims that do not match, puts the thinnest first if asked;
   without this script the whole table shows. */
(() => {
  "use strict";
  // whether a formula is written r = 8 or r=8 makes no difference
  const tight = (text) => text.toLowerCase().replace(/\s*([=<>≤≥≪≈×+·/])\s*/g, "$1");
  const enliven = (root) => {
    const form = root.querySelector("form");
    const count = root.querySelector(".lc-ledger-count");
    const rows = [...root.querySelectorAll("tbody tr")];
    const texts = rows.map((row) => tight("claim " + row.textContent));
    const fields = [...form.querySelectorAll("[data-axis]")];

    const order = form.querySelector("[data-order]");
    const body = root.querySelector("tbody");

    const show = () => {
      const key = order.value;
      const far = (row) => Number(row.dataset[key].replace("inf", "Infinity"));
      body.append(...(key ? [...rows].sort((a, b) => far(a) - far(b) || 0) : rows));
      const words = tight(fields.find((f) => f.dataset.axis === "words").value).split(/\s+/);
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
    show();
    window.addEventListener("pageshow", show); // a browser that goes back fills in the fields of the earlier visit late
  };

  const start = () => document.querySelectorAll(".lc-ledger").forEach(enliven);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
