"""Execute the book's notebooks side by side into the notebook cache, from which the site is then built.

    python tools/execute_notebooks.py [--jobs N] [--differences]

Notebooks already in the cache (same code, same package, same pins) are not run again. Prints a line a notebook;
on an error prints the notebook, the cell, its source and the traceback, and exits with 1. A result that came out
differently is an error in strict runs (LORA_COURSE_STRICT=1); else its page says so, and --differences lists them.
"""

import argparse
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import nbformat
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution

from lora_course.book.cache import book_environment, cache_path
from lora_course.book.claim_box import MARK
from lora_course.book.observed import strict

ROOT = Path(__file__).resolve().parents[1]


def notebooks_of_toc(root: Path) -> list[Path]:
    """All notebooks that `_toc.yml` names, in its order."""

    def files(node):
        if isinstance(node, dict):
            yield from ([node["file"]] if "file" in node else [])
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                yield from files(child)

    named = files(yaml.safe_load((root / "_toc.yml").read_text("utf8")))
    return [p for p in (root / f"{name}.ipynb" for name in named) if p.is_file()]


def execute(path: Path, timeout: int):
    """Run one notebook in its own kernel; return (notebook with outputs, result)."""
    notebook = nbformat.read(path, as_version=4)
    result = single_nb_execution(notebook, cwd=str(path.parent), timeout=timeout, allow_errors=False)
    return notebook, result


def merged(outputs: list) -> list:
    """The outputs with neighboring pieces of one stream in one: where a kernel cuts a stream is chance."""
    whole = []
    for out in outputs:
        last = whole[-1] if whole else None
        if last and out.output_type == last.output_type == "stream" and out.name == last.name:
            last.text += out.text
        else:
            whole.append(out)
    return whole


def keep(root: Path, path: Path, notebook, seconds: float) -> None:
    """Put an executed notebook into the cache of the book at `root`; `path` is its source."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)
    cache = get_cache(cache_path(root))
    record = cache.add_nb_to_project(str(path))
    bundle = CacheBundleIn(notebook, record.uri, data={"execution_seconds": seconds})
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def failure(notebook, result) -> str:
    """What failed: cell, its source and its own traceback (or, for a dead kernel or a time-out, nbclient's)."""
    for number, cell in enumerate(notebook.cells):
        for out in cell.get("outputs", []):
            if out.output_type == "error":
                traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(out.traceback))
                return f"cell {cell.get('id', number)!r} (number {number}):\n\n{cell.source}\n\n{traceback}"
    return f"cell unknown:\n\n{result.exc_string}"


def differences(notebook) -> list[str]:
    """What came out differently in an executed notebook: a line for each box, with its cell."""
    found = []
    for cell in notebook.cells:
        for out in cell.get("outputs", []):
            data = out.get("data", {})
            if MARK in data.get("text/html", ""):
                text = " ".join(data.get("text/plain", "").splitlines()[:2])  # of a claim's box, its head
                found.append(f"cell {cell.get('id')!r}: {text}")
    return found


def cached(cache, path: Path):
    """The executed notebook that the cache holds for `path`; None if there is none."""
    try:
        record = cache.match_cache_notebook(nbformat.read(path, as_version=4))
    except KeyError:
        return None
    return cache.get_cache_bundle(record.pk).nb


def list_differences() -> None:
    """Print what came out differently in all executed notebooks; nothing if nothing did."""
    cache = get_cache(cache_path(ROOT))
    found = {path: differences(cached(cache, path) or nbformat.v4.new_notebook()) for path in notebooks_of_toc(ROOT)}
    if not any(found.values()):
        return
    print(
        "== on this machine some results came out differently; their pages say so, the text speaks of the published run"
    )
    for path, lines in found.items():
        for line in lines:
            print(f"  {path.relative_to(ROOT)}, {line}")


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="notebooks at once (default: cores)")
    parser.add_argument("--timeout", type=int, default=120, help="seconds a cell may take (default: 120)")
    parser.add_argument("--differences", action="store_true", help="run nothing: list what came out differently")
    args = parser.parse_args()
    if args.differences:
        list_differences()
        return 0
    if args.jobs < 1:
        parser.error(f"--jobs is {args.jobs}; it must be at least 1")
    os.environ.update(book_environment())

    cache = get_cache(cache_path(ROOT))
    todo = []
    for path in notebooks_of_toc(ROOT):
        before = cached(cache, path)
        if before is None or (strict() and differences(before)):
            todo.append(path)
        else:
            print(f"  cached   {path.relative_to(ROOT)}", flush=True)
    failures, start = [], time.perf_counter()
    with ProcessPoolExecutor(min(args.jobs, max(len(todo), 1))) as pool:
        runs = {pool.submit(execute, path, args.timeout): path for path in todo}
        for done, run in enumerate(as_completed(runs), 1):
            path = runs[run]
            notebook, result = run.result()
            state = "FAILED  " if result.err else "executed"
            print(f"  {state} {path.relative_to(ROOT)}  {result.time or 0:5.1f} s  [{done}/{len(todo)}]", flush=True)
            if result.err:
                failures.append((path, notebook, result))
                continue
            keep(ROOT, path, notebook, result.time)
    for path, notebook, result in failures:
        print(f"\n{path.relative_to(ROOT)}, {failure(notebook, result)}", file=sys.stderr)
    if todo and not failures:
        print(f"  {len(todo)} notebook(s) in {time.perf_counter() - start:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
