// What the tests measure inside a page. Colors are [r, g, b, alpha], channels 0 to 255, alpha 0 to 1.
window.lcProbe = (() => {
  "use strict";
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", {
    willReadFrequently: true,
  });
  const pixel = () => {
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const color = (css) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = css;
    pen.fillRect(0, 0, 1, 1);
    return pixel();
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, two) => {
    const [low, high] = [luminance(one), luminance(two)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const opacity = (node) => {
    let product = 1;
    for (let e = node; e; e = e.parentElement) product *= Number(getComputedStyle(e).opacity);
    return product;
  };

  // what an element paints at a point of the window, null if nothing
  const paint = (element, x, y) => {
    const style = getComputedStyle(element);
    if (!(element instanceof SVGElement) || element instanceof SVGSVGElement) return color(style.backgroundColor);
    const local = new DOMPoint(x, y).matrixTransform(element.getScreenCTM().inverse());
    if (element instanceof SVGImageElement) {
      const box = element.getBBox();
      const [width, height] = [element.width.baseVal.value, element.height.baseVal.value];
      pen.clearRect(0, 0, 1, 1);
      pen.drawImage(element, -(local.x - box.x), -(local.y - box.y), width, height);
      return pixel();
    }
    if (!(element instanceof SVGGeometryElement) || style.fill === "none" || style.fill.startsWith("url")) return null;
    if (!element.isPointInFill(local)) return null;
    const filled = color(style.fill);
    filled[3] *= Number(style.fillOpacity) * opacity(element);
    return filled;
  };

  // the color that lies behind an element's text at a point of the window
  const ground = (element, x, y) => {
    let stack = document.elementsFromPoint(x, y);
    const at = stack.findIndex((e) => e === element || element.contains(e));
    if (at >= 0) stack = stack.slice(at);
    const layers = [];
    for (const layer of stack) {
      if (layer.closest("text")) continue;
      const painted = paint(layer, x, y);
      if (painted && painted[3] > 0) layers.push(painted);
      if (painted && painted[3] > 0.99) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };

  const texts = (root) => {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      if (!walker.currentNode.textContent.trim() || element.closest("script, style, template, noscript")) continue;
      if (element.checkVisibility({ visibilityProperty: true })) found.push([walker.currentNode, element]);
    }
    return found;
  };

  return {
    // formulas are set, fonts are there, two frames were painted
    settled: async () => {
      await window.MathJax?.startup?.promise;
      await document.fonts.ready;
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    },

    // the page as it was at first: what the reader can move or unfold is back, nothing has the focus
    fresh: () => {
      const folds = document.querySelectorAll("details");
      window.lcUnfolded ??= [...folds].map((e) => e.open);
      folds.forEach((e, i) => (e.open = window.lcUnfolded[i]));
      for (const button of document.querySelectorAll(".lc-explore .lc-reset")) button.click();
      document.activeElement?.blur();
      window.scrollTo({ left: 0, top: 0, behavior: "instant" });
    },

    // open all that can be opened, and wait until it has faded in
    unfolded: async () => {
      for (const details of document.querySelectorAll("details")) details.open = true;
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      await lcProbe.still();
      await new Promise((done) => setTimeout(done, 350)); // the theme looks for scrolling blocks after 300 ms
    },

    // wait until nothing moves
    still: () => Promise.allSettled(document.getAnimations().map((animation) => animation.finished)),

    // all text below `selector` whose worst contrast is under `least`, and how many texts were looked at
    contrast: (selector, least) => {
      const result = { seen: 0, low: [] };
      for (const root of document.querySelectorAll(selector)) {
        for (const [node, element] of texts(root)) {
          element.scrollIntoView({ block: "center", behavior: "instant" });
          const range = document.createRange();
          range.selectNodeContents(node);
          const box = range.getBoundingClientRect();
          if (box.width < 1 || box.height < 1) continue;
          const style = getComputedStyle(element);
          const ink = color(element.closest("svg") ? style.fill : style.color);
          ink[3] *= opacity(element) * (element.closest("svg") ? Number(style.fillOpacity) : 1);
          let worst = Infinity;
          let behind;
          for (const share of [0.1, 0.5, 0.9]) {
            const below = ground(element, box.left + share * box.width, box.top + box.height / 2);
            const here = ratio(over(ink, below), below);
            if (here < worst) [worst, behind] = [here, below];
          }
          result.seen += 1;
          if (worst < least) {
            const name = root.id || root.className;
            result.low.push(
              `${name}: "${node.textContent.trim()}" ${worst.toFixed(2)} (ink ${ink.map(Math.round)}, ground ${behind.map(Math.round)})`,
            );
          }
        }
      }
      return result;
    },

    formulas: () => {
      const main = document.querySelector("main");
      const raw = [];
      for (const [node, element] of texts(main)) {
        if (element.closest("pre, code, kbd, samp, mjx-container, .lc-frames")) continue;
        const found = node.textContent.match(/\$\$|\\[([]|\\[a-zA-Z]{2,}|\$[^$\s][^$]*[\\^_][^$]*\$/);
        if (found) raw.push(`${found[0]} in: ${node.textContent.trim().slice(0, 100)}`);
      }
      const cut = (formula) => {
        for (let p = formula.parentElement; p !== main; p = p.parentElement) {
          if (getComputedStyle(p).overflowX === "hidden")
            return formula.getBoundingClientRect().right > p.getBoundingClientRect().right + 1;
          if (getComputedStyle(p).overflowX !== "visible") return false;
        }
        return formula.getBoundingClientRect().right > window.innerWidth;
      };
      const visible = [...main.querySelectorAll("mjx-container")].filter((e) => e.checkVisibility());
      return {
        cut: visible.filter(cut).map((e) => e.textContent.trim().slice(0, 80)),
        wanted: [...main.querySelectorAll(".math")].filter((e) => !e.parentElement.closest(".math")).length,
        set: main.querySelectorAll("mjx-container").length,
        broken: [...main.querySelectorAll("mjx-merror, [data-mjx-error]")].map((e) => e.outerHTML.slice(0, 200)),
        raw,
      };
    },

    // [how wide the page is, how wide the window is, what sticks out]
    sideways: () => {
      const scroll = document.scrollingElement;
      const cut = (e) => {
        for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
          if (getComputedStyle(p).overflowX !== "visible") return true;
        return false;
      };
      const out = [...document.body.querySelectorAll("*")].filter(
        (e) => e.getBoundingClientRect().right > scroll.clientWidth + 1 && e.checkVisibility() && !cut(e),
      );
      return [scroll.scrollWidth, scroll.clientWidth, out.slice(0, 5).map((e) => e.outerHTML.slice(0, 160))];
    },

    // formulas and printed lines that are wider than their column: the reader would have to scroll for the end
    wide: () =>
      [...document.querySelectorAll("article div.math, article .cell_output pre")]
        .filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 2)
        .map((e) => `${e.scrollWidth - e.clientWidth} px: ${e.textContent.trim().slice(0, 100)}`),

    // make plain text of the words of code that look like ones before them (ink, size, all grounds): axe needs ten
    // seconds to judge each of thousands, and says the same of all
    repeats: () => {
      const known = new Map();
      const grounds = (e) => {
        if (!e || e === document.body) return "";
        if (!known.has(e)) {
          const style = getComputedStyle(e);
          const own = `${style.backgroundColor} ${style.backgroundImage} ${style.opacity}`;
          known.set(e, `${own}/${grounds(e.parentElement)}`);
        }
        return known.get(e);
      };
      const [seen, twins] = [new Set(), []];
      for (const e of document.querySelectorAll("article pre span:not(:has(*))")) {
        const style = getComputedStyle(e);
        const look = [e.localName, style.color, style.fontSize, style.fontWeight, grounds(e)].join();
        if (seen.has(look)) twins.push(e);
        seen.add(look);
      }
      for (const e of twins) e.replaceWith(e.textContent);
    },

    // what scrolls sideways and cannot be reached by keyboard
    unreachable: () =>
      [...document.querySelectorAll("article *")]
        .filter(
          (e) =>
            e.checkVisibility() &&
            e.scrollWidth > e.clientWidth + 1 &&
            /auto|scroll/.test(getComputedStyle(e).overflowX) &&
            e.tabIndex < 0 &&
            !e.querySelector("a, button, input, [tabindex='0']"),
        )
        .map((e) => e.outerHTML.slice(0, 150)),

    // pictures without words
    wordless: () => {
      const named = (text) => text && !/[0-9a-f]{16,}|\.(png|svg|jpe?g|webp)$|\\[a-zA-Z]+|\$/.test(text);
      const problems = [];
      for (const image of document.querySelectorAll("img"))
        if (!named(image.getAttribute("alt"))) problems.push(image.outerHTML.slice(0, 200));
      for (const stage of document.querySelectorAll("main [role=img]:not([aria-hidden=true])"))
        if (stage.closest("a, button")) continue;
        else if (!named(stage.ariaLabel) || stage.ariaLabel.split(/\s+/).length < 4) problems.push(stage.outerHTML.slice(0, 200));
      for (const svg of document.querySelectorAll("article svg"))
        if (!svg.closest("[role=img], a, button, [aria-hidden=true]")) problems.push(svg.outerHTML.slice(0, 200));
      return problems;
    },
  };
})();
