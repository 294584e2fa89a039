r"""How long the book takes, cold and after an edit, and whether two builds agree (`python -m benchmarks bench_book`).

Works in a fresh copy of the tree, with the environment that stands; needs the built site to compare with. Takes
several minutes: every notebook is executed anew.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bs4 import BeautifulSoup

from lora_course.book.cache import book_environment

ROOT = Path(__file__).resolve().parents[1]
SITE = Path("_build/html")
COLD_TARGET, EDIT_TARGET = 300.0, 15.0  # s, on two cores
OWN_TIMES = "appendix/environment.html"  # the run-time table
TEST_SECONDS, TEST_TARGET = Path("_build/test_seconds"), 900.0  # written by `make test` when all passed


def seconds(folder: Path, *command) -> float:
    r"""Seconds that a Python command takes in `folder`; RuntimeError with its last words if it fails."""
    environment = os.environ | book_environment() | {"PYTHONPATH": str(folder)}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - start


def build(folder: Path) -> float:
    r"""Seconds of the site step."""
    script = str(Path(sys.executable).with_name("jupyter-book"))  # not resolved: the environment's own
    return seconds(folder, script, "build", ".", "-W", "--keep-going", "-q")


def page_text(path: Path) -> str:
    r"""A page without the outputs of cells that are tagged `timing`."""
    text = path.read_text("utf8")
    if "tag_timing" not in text:
        return text
    soup = BeautifulSoup(text, "html.parser")
    for cell in soup.select(".tag_timing .cell_output"):
        cell.decompose()
    return str(soup)


def differing(one: Path, other: Path) -> list[str]:
    r"""Pages of the site `one` that are missing in `other` or not the same there, the run-time table left out."""
    found = []
    for page in sorted(one.rglob("*.html")):
        name = page.relative_to(one).as_posix()
        twin = other / name
        if name != OWN_TIMES and (not twin.is_file() or page_text(page) != page_text(twin)):
            found.append(name)
    return found


def run() -> list[tuple]:
    r"""Rows (what, value, target or None, unit), as `python -m benchmarks` prints them.

    Raises `FileNotFoundError` if the site is not built, `RuntimeError` if building it anew fails.
    """
    if not (ROOT / SITE / "index.html").is_file():
        raise FileNotFoundError(f"{ROOT / SITE} holds no site: run make book first")
    ignored = shutil.ignore_patterns("_build", ".git", ".venv*", "__pycache__", ".pytest_cache", ".hypothesis")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "book"
        shutil.copytree(ROOT, copy, ignore=ignored)
        executing = seconds(copy, "tools/execute_notebooks.py", "--jobs", "2")
        site = build(copy)
        names = differing(ROOT / SITE, copy / SITE)
        chapter = copy / "chapters/03_intrinsic_rank.ipynb"
        text = chapter.read_text("utf8")
        chapter.write_text(text.replace("LoRA rests on one sentence", "LoRA rests upon one sentence"), "utf8")
        edited = build(copy)
        if "rests upon" not in (copy / SITE / "chapters/03_intrinsic_rank.html").read_text("utf8"):
            raise RuntimeError("the edit of chapter 3 is not on its page")
    tested = float((ROOT / TEST_SECONDS).read_text()) if (ROOT / TEST_SECONDS).is_file() else float("nan")
    return [
        ("make test, its last whole run here (nan: none yet)", tested, TEST_TARGET, "s"),
        ("notebooks, cold, two side by side", executing, None, "s"),
        ("site step, cold", site, None, "s"),
        ("the book, cold, after installation", executing + site, COLD_TARGET, "s"),
        ("the book, after an edit of one paragraph", edited, EDIT_TARGET, "s"),
        (f"pages that two builds make different {' '.join(names[:5])}".strip(), float(len(names)), 0.0, "pages"),
    ]
