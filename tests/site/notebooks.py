r"""What the live sliders of a notebook showed when nbval last ran it (tests/kept_runs.py)."""

import itertools
import json
from pathlib import Path
from typing import NamedTuple

from tests.kept_runs import ROOT, drawn_path

HOW_TO_RUN = "python -m pytest -p tests.kept_runs --nbval-lax --nbval-current-env"


class Drawn(NamedTuple):
    r"""One Explore: its sliders, and in the order of its grid what its widget showed. Fields: see recorder.py."""

    axes: dict
    start: dict
    labels: dict
    words: list[str]
    frames: list[str]
    texts: list[list[str]]
    reset: str

    def grid(self):
        r"""All points, row-major."""
        return [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]

    def number(self, **point) -> int:
        r"""Which in that order is the point; axes left out stand at their start."""
        return self.grid().index(self.start | point)

    def frame(self, **point) -> str:
        r"""The picture at a point."""
        return self.frames[self.number(**point)]


def drawn_by(notebook: Path) -> dict[str, Drawn]:
    r"""What each slider figure of the notebook drew, by its id.

    Raises `FileNotFoundError` if nbval did not run the notebook as it stands.
    """
    path = drawn_path(notebook)
    if not path.is_file():
        name = notebook.relative_to(ROOT)
        raise FileNotFoundError(f"{name} was not run as it stands: make notebooks, or {HOW_TO_RUN} {name}")
    return {own_id: Drawn(**fields) for own_id, fields in json.loads(path.read_text("utf8")).items()}
