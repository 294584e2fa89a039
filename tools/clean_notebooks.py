r"""Strip notebooks of outputs, counts and foreign metadata; cell ids stay.

    python tools/clean_notebooks.py [--check] [paths]

Paths are notebooks or folders; without any: every notebook of the book. With --check nothing is written;
dirty files and cells are named and the exit status is 1. It is 1, too, if something is left that only an
author can repair, such as an id or a set-up cell.
"""

import argparse
import sys
from pathlib import Path

from notebook_rules import (
    ROOT,
    book_notebooks,
    cleaned,
    dirt,
    misnamed,
    read_notebook,
    repository_of,
    setup_problems,
    write_notebook,
)


def main(arguments=None):
    r"""Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, only report")
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks (default: all of the book)")
    options = parser.parse_args(arguments)
    paths = options.paths or [ROOT / notebook.file for notebook in book_notebooks()]
    paths = [file for path in paths for file in (sorted(path.glob("*.ipynb")) if path.is_dir() else [path])]
    left = 0
    for path in paths:
        try:
            notebook = read_notebook(path)
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            left += 1
            continue
        dirty, wrong = list(dirt(notebook)), list(misnamed(notebook))
        if notebook.file.startswith(("chapters/", "appendix/")):
            wrong += setup_problems(notebook, repository_of())
        if dirty and not options.check:
            write_notebook(path, cleaned(notebook.json))
            print(f"cleaned {notebook.file}")
            dirty = []
        for problem in [*dirty, *wrong]:
            print(problem, file=sys.stderr)
        left += len(dirty) + len(wrong)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
