r"""A pytest plugin: what nbval executes is kept, so that `make test` runs each notebook once.

    python -m pytest -p tests.kept_runs --nbval-lax --nbval-current-env chapters

Notebooks run as for the book. Of one whose cells all passed, the outputs go into the notebook cache, from which
the site is then built, and what its sliders draw at every point goes to `drawn_path`, which tests/site reads.
"""

import copy
import hashlib
import os
import sys
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_cache import get_cache
from nbval.plugin import IPyNbFile

from lora_course.book.cache import book_environment, cache_path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from execute_notebooks import keep  # noqa: E402

SECONDS = 120  # for all sliders of a notebook
PRELUDE = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.site.recorder import watch; watch(); del watch, sys"
)
OUTPUTS = ("stream", "display_data", "execute_result")
CHANGES = ("clear_output", "update_display_data")  # would have to be replayed; no notebook uses them


def drawn_path(path: Path, root: Path = ROOT) -> Path:
    r"""Where the pictures are kept that a notebook's sliders draw with its present code, package and pins."""
    code = "\0".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    return cache_path(root) / "drawn" / f"{path.stem}-{hashlib.sha256(code.encode()).hexdigest()[:12]}.json"


def pytest_configure(config):
    os.environ.update(book_environment())
    if not hasattr(config, "workerinput"):
        get_cache(
            cache_path(config.rootpath)
        ).list_cache_records()  # so that the database is there before workers race for it


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    found = yield
    return [KeptNotebook.from_parent(parent, path=file_path) if isinstance(f, IPyNbFile) else f for f in found]


class KeptNotebook(IPyNbFile):
    r"""nbval's notebook, which also listens to what its kernel says."""

    def collect(self):
        yield from super().collect()
        yield Sliders.from_parent(self, name="sliders")

    def setup(self):
        self.began, self.messages, self.passed = time.perf_counter(), {}, 0
        super().setup()
        self.run(PRELUDE)

    def get_kernel_message(self, timeout=None, stream="iopub"):
        message = super().get_kernel_message(timeout, stream)
        self.messages.setdefault(message["parent_header"].get("msg_id"), []).append(message)
        return message

    def run(self, code):
        r"""Execute code of ours in the kernel; raises `RuntimeError` with its traceback."""
        reply = self.kernel.kc.execute_interactive(
            code, store_history=False, timeout=SECONDS, output_hook=lambda message: None
        )["content"]
        if reply["status"] != "ok":
            raise RuntimeError("\n".join(reply["traceback"]))

    def executed(self):
        r"""The notebook with the outputs of its cells."""
        said = [m for m in self.messages.values() if any(part["msg_type"] == "execute_input" for part in m)]
        notebook = copy.deepcopy(self.nb)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for number, (cell, messages) in enumerate(zip(cells, said, strict=True), 1):
            cell.execution_count = number
            for message in messages:
                if message["msg_type"] in CHANGES:
                    raise RuntimeError(f"cell {cell.id!r} sends {message['msg_type']}, which is not kept: print less")
                if message["msg_type"] in OUTPUTS:
                    cell.outputs.append(nbformat.v4.output_from_msg(message))
                if message["msg_type"] == "execute_result":  # nbval's kernel does not count
                    cell.outputs[-1].execution_count = number
        notebook.metadata["language_info"] = self.kernel.kc.kernel_info(reply=True)["content"]["language_info"]
        return notebook


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call" and isinstance(item.parent, KeptNotebook):
        item.parent.passed += report.passed
    return report


class Sliders(pytest.Item):
    r"""After a notebook's cells: its sliders are moved live, and all is kept."""

    def runtest(self):
        notebook, cells = self.parent, sum(cell.cell_type == "code" for cell in self.parent.nb.cells)
        if notebook.passed < cells:
            pytest.skip("a cell failed")
        seconds = time.perf_counter() - notebook.began
        path = drawn_path(notebook.path, self.config.rootpath)
        path.parent.mkdir(parents=True, exist_ok=True)
        notebook.run(f"from tests.site.recorder import write; write({str(path)!r})")
        keep(self.config.rootpath, notebook.path, notebook.executed(), seconds)

    def reportinfo(self):
        return self.path, 0, f"{self.path.name}: sliders"
