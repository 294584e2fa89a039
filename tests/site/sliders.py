r"""Handles on the slider figures of an open page, for the tests.

Legend: at = {axis: position on the slider, from 0}; number = which frame of the page, row-major over the grid.
"""

import re

NUMBER = re.compile(r"[-\u2212]?\d+(?:[.,]\d+)*")

# the frame on show against another, both as the browser parses them
SAME = """const same = (root, svg) => {
    const [shown, wanted] = [document.createElement("div"), document.createElement("div")];
    shown.append(...root.querySelector(".lc-stage").cloneNode(true).childNodes);
    wanted.innerHTML = svg;
    return shown.isEqualNode(wanted);
};"""
PUT = """const put = (root, at) => {
    for (const [axis, position] of Object.entries(at)) {
        const slider = root.querySelector(`input[data-axis="${axis}"]`);
        slider.value = position;
        slider.dispatchEvent(new Event("input", {bubbles: true}));
    }
};"""
OWN = f"""(root, number) => {{
    {SAME}
    root.lcOwn ??= JSON.parse(root.querySelector(".lc-frames").textContent).frames;
    return same(root, root.lcOwn[number]);
}}"""
WALK = f"""(root, [points, frames]) => {{
    {SAME} {PUT}
    const stage = root.querySelector(".lc-stage");
    const inputs = [...root.querySelectorAll("input[data-axis]")];
    return points.map((at, number) => {{
        put(root, at);
        const byAxis = (read) => Object.fromEntries(inputs.map((e) => [e.dataset.axis, read(e)]));
        return {{
            same: same(root, frames[number]),
            texts: [...stage.querySelectorAll("text")].map((e) => e.textContent),
            label: stage.getAttribute("aria-label"),
            says: byAxis((e) => e.getAttribute("aria-valuetext")),
            outputs: byAxis((e) => e.parentElement.querySelector("output").textContent),
        }};
    }});
}}"""


class Sliders:
    r"""One slider figure on an open page."""

    def __init__(self, page, own_id):
        self.page, self.root = page, page.locator(f"figure.lc-explore[id='{own_id}']")
        self.axes = [e.get_attribute("data-axis") for e in self.root.locator("input[data-axis]").all()]

    def slider(self, axis):
        r"""The slider of an axis."""
        return self.root.locator(f"input[data-axis='{axis}']")

    def position(self, axis) -> int:
        r"""Where the slider stands."""
        return int(self.slider(axis).input_value())

    def put(self, at: dict) -> None:
        r"""Set sliders as a script would: value, then the input event."""
        self.root.evaluate(f"(root, at) => {{ {PUT} put(root, at); }}", at)

    def walk(self, points: list[dict], frames: list[str]) -> list[dict]:
        r"""Go through the points; for each: is the frame the `same`, its `texts`, its `label`, what sliders say."""
        return self.root.evaluate(WALK, [points, frames])

    def shows(self, number: int) -> bool:
        r"""Whether the stage holds exactly the page's frame of this number."""
        return self.root.evaluate(OWN, number)

    def frame(self) -> str:
        r"""What the stage holds."""
        return self.root.locator(".lc-stage").inner_html()
