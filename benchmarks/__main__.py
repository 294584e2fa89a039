"""`make bench`: every benchmark of the project in one table; each bench_*.py here has run() -> rows.

A row is (name, value, target, what): what was measured, what it should be at most (None: only reported), and in
which terms.
"""

import importlib
import sys
from pathlib import Path


def main() -> int:
    """Run all, or those named on the command line; the exit status says whether a target was missed."""
    names = sys.argv[1:] or sorted(p.stem for p in Path(__file__).parent.glob("bench_*.py"))
    missed = 0
    print(f"{'benchmark':<62} {'value':>9} {'target':>7}  what")
    for name in names:
        for row, value, target, what in importlib.import_module(f"benchmarks.{name}").run():
            over = target is not None and value > target
            missed += over
            limit = "" if target is None else f"{target:g}"
            print(f"{row:<62} {value:9.3f} {limit:>7}  {what}{'  <- over' if over else ''}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
