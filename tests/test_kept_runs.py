r"""What nbval executes is kept as the book's own execution would give it, and of a failing notebook nothing is."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_cache import get_cache

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

from execute_notebooks import execute, merged  # noqa: E402

from lora_course.book.cache import book_environment, cache_path  # noqa: E402
from tests.kept_runs import drawn_path  # noqa: E402

CELLS = [
    "import sys\nfrom lora_course.book import canvas, explore\nheight = 1",
    "for i in range(50):\n    print(i, flush=True)\nprint('oh', file=sys.stderr, flush=True)\nprint('end')",
    "print('before')\ndisplay({'text/plain': 'shown'}, raw=True)\nprint('after')\n6 * 7",
    """def draw(r):
    fig, ax = canvas()
    ax.plot([0, 1], [0, height * r])
    ax.set_title(f"slope {height * r}")
    return fig

explore(draw, alt="A line from zero upward.", caption="x", r=[1, 2])""",
]


def run(folder, *cells):
    r"""A book of one notebook in `folder`, run by nbval with the plugin: (its exit status, the notebook's path)."""
    if not (folder / "lora_course").exists():
        (folder / "lora_course").symlink_to(ROOT / "lora_course")
    path = folder / "one.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.kept_runs", "-p", "no:cacheprovider"]
    command += ["--rootdir", str(folder), "--nbval-lax", "--nbval-current-env", str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True).returncode, path


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    r"""Path of a notebook that passed; its last cell binds a name anew that `draw` reads."""
    status, path = run(tmp_path_factory.mktemp("book"), *CELLS, "height = 10")
    assert status == 0
    return path


def kept(path):
    r"""The code cells that the cache holds for the notebook."""
    cache = get_cache(cache_path(path.parent))
    record = cache.match_cache_notebook(nbformat.read(path, as_version=4))
    return [cell for cell in cache.get_cache_bundle(record.pk).nb.cells if cell.cell_type == "code"]


def test_outputs_are_those_of_the_books_own_execution(passed, monkeypatch):
    for name, value in book_environment().items():
        monkeypatch.setenv(name, value)
    notebook, result = execute(passed, 60)
    assert not result.err
    for mine, other in zip(kept(passed), notebook.cells, strict=True):
        assert mine.outputs == merged(other.outputs)


def test_sliders_are_drawn_after_the_last_cell(passed):
    (drawn,) = json.loads(drawn_path(passed, passed.parent).read_text("utf8")).values()
    assert drawn["axes"] == {"r": [1, 2]} and drawn["start"] == {"r": 2}
    assert drawn["texts"] == [["slope 10"], ["slope 20"]]  # what a reader sees now; the page says 1 and 2
    assert [re.findall("slope [0-9]+", svg) for svg in drawn["frames"]] == drawn["texts"]


@pytest.mark.parametrize("last", ["1 / 0", "from IPython.display import clear_output; clear_output(); print(1)"])
def test_of_a_notebook_that_fails_nothing_is_kept(tmp_path, last):
    status, path = run(tmp_path, CELLS[0], last)
    assert status == 1
    with pytest.raises(KeyError):
        kept(path)


def test_neighboring_pieces_of_a_stream_are_one():
    pieces = [("stdout", "a"), ("stdout", "b"), ("stderr", "c"), ("stdout", "d")]
    outputs = [nbformat.v4.new_output("stream", name=name, text=text) for name, text in pieces]
    assert [(out.name, out.text) for out in merged(outputs)] == [("stdout", "ab"), ("stderr", "c"), ("stdout", "d")]
