r"""Handles on the slider figures of an open page, for the tests.

Legend: at = {axis: position on the slider, from 0}; point = {axis: value}.
"""

import itertools
import re

NUMBER = re.compile(r"[-\u2212]?\d+(?:[.,]\d+)*")

# the frame on show against one drawn anew, both as the browser parses them
SAME = """(root, fresh) => {
    const [shown, wanted] = [document.createElement("div"), document.createElement("div")];
    shown.append(...root.querySelector(".lc-stage").cloneNode(true).childNodes);
    wanted.innerHTML = fresh;
    return shown.isEqualNode(wanted);
}"""


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
        self.root.evaluate(
            """(root, at) => Object.entries(at).forEach(([axis, position]) => {
                const slider = root.querySelector(`input[data-axis="${axis}"]`);
                slider.value = position;
                slider.dispatchEvent(new Event("input", {bubbles: true}));
            })""",
            at,
        )

    def walk(self, axes: dict):
        r"""Go through the whole grid by keyboard (Home, then ArrowRight), row-major; gives each point."""
        names = list(axes)
        last = names[-1]
        for row in itertools.product(*(enumerate(axes[name]) for name in names[:-1])):
            for name, (position, _) in zip(names, row, strict=False):
                if self.position(name) != position:
                    self.slider(name).press("ArrowRight" if position else "Home")
            self.slider(last).press("Home")
            for position, value in enumerate(axes[last]):
                if position:
                    self.page.keyboard.press("ArrowRight")
                yield {name: v for name, (_, v) in zip(names, row, strict=False)} | {last: value}

    def shows(self, svg: str) -> bool:
        r"""Whether the stage holds exactly this picture."""
        return self.root.evaluate(SAME, svg)

    def frame(self) -> str:
        r"""What the stage holds."""
        return self.root.locator(".lc-stage").inner_html()

    def texts(self) -> list[str]:
        r"""The words in the picture, in order."""
        return self.root.locator(".lc-stage text").all_text_contents()


def drawn_texts(drawn) -> set[str]:
    r"""Titles, annotations and legends of what a `draw` returned, from matplotlib, not from its SVG."""
    found = set()
    for figure in drawn if isinstance(drawn, (list, tuple)) else [drawn]:
        artists = list(figure.texts)
        for axes in figure.axes:
            artists += [axes.title, axes._left_title, axes._right_title, *axes.texts]
            artists += axes.get_legend().get_texts() if axes.get_legend() else []
        for legend in figure.legends:
            artists += legend.get_texts()
        found |= {line.strip() for a in artists if a.get_visible() for line in a.get_text().splitlines()}
    return found - {""}
