/* Sliders of a page: swaps pre-drawn frames; frame number = row-major over the sliders in their order. */
(() => {
  "use strict";
  const PAUSE = 150; // ms of rest before the sentence changes: a screen reader hears where a drag ends, not its way

  const enliven = (root) => {
    const part = (name) => root.querySelector(".lc-" + name);
    const axes = [...root.querySelectorAll("input[data-axis]")].map((input) => ({
      input,
      texts: JSON.parse(input.dataset.texts),
      output: input.parentElement.querySelector("output"),
    }));
    let data, timer;

    const show = () => {
      data ??= JSON.parse(part("frames").textContent);
      let at = 0;
      for (const { input, texts, output } of axes) {
        at = at * texts.length + Number(input.value);
        output.textContent = texts[input.value];
        input.setAttribute("aria-valuetext", input.dataset.label + " = " + texts[input.value]);
      }
      part("stage").innerHTML = data.frames[at];
      part("stage").setAttribute("aria-label", data.say[at]);
      clearTimeout(timer);
      timer = setTimeout(() => (part("say").textContent = data.say[at]), PAUSE);
    };

    root.addEventListener("input", show);
    part("reset").addEventListener("click", () => {
      for (const { input } of axes) input.value = input.defaultValue;
      show();
    });
    part("controls").hidden = false;
  };

  const start = () => document.querySelectorAll(".lc-explore").forEach(enliven);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
