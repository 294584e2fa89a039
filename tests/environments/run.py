"""Run the notebooks and the unit tests under other package versions than the pinned ones.

    python -m tests.environments.run {colab,oldest,newest,here} [--torch VERSION]

colab, oldest and newest build a new virtual environment in _build/env-NAME from NAME.txt; here uses the
packages of the running Python (inside Colab's own image). Then, as the set-up cell of a chapter does,
lora_course is installed with --no-deps: nothing else may change, and its requirements must be met by what is
there. Stops at the first thing that is not so. TORCH_INDEX names another index for torch, as in the Makefile.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
TESTS = ["tests/adapters", "tests/theory", "tests/book", "tests/labs"]
TOOLS = ["pytest", "nbval", "pytest-xdist", "hypothesis"]  # what the tests need, and Colab's image may lack


def run(*command: str | Path) -> None:
    """Run a command in the repository root, or exit with its name."""
    print("$", *command, flush=True)
    if status := subprocess.run([str(part) for part in command], cwd=ROOT).returncode:
        sys.exit(f"exit status {status}: {' '.join(map(str, command))}")


def pip(python: Path, *args: str | Path) -> None:
    """pip of that Python, quiet."""
    run(python, "-m", "pip", "--disable-pip-version-check", *args)


def packages(python: Path) -> dict[str, str]:
    """Name and version of all that is installed beside that Python."""
    listed = subprocess.check_output([python, "-m", "pip", "list", "--format=json"], stderr=subprocess.DEVNULL)
    return {package["name"]: package["version"] for package in json.loads(listed)}


def environment(name: str, torch: str | None) -> Path:
    """Build the virtual environment `name` from its list; return its Python."""
    folder = ROOT / "_build" / f"env-{name}"
    venv.create(folder, clear=True, with_pip=True)
    python = folder / "bin" / "python"
    pins = (HERE / f"{name}.txt").read_text("utf8").splitlines()
    pins = [f"torch=={torch}" if torch and pin.startswith("torch==") else pin for pin in pins]
    index = os.environ.get("TORCH_INDEX")
    # torch first and alone: its own index lacks what it depends on, which the second line brings
    only_torch = next(pin for pin in pins if re.fullmatch("torch(==.*)?", pin))
    pip(python, "install", "-q", "--no-deps", *(["--index-url", index] if index else []), only_torch)
    chosen = folder / "requirements.txt"
    chosen.write_text("\n".join(pins), "utf8")
    pip(python, "install", "-q", "-r", chosen)
    return python


def add_package(python: Path, folder: Path) -> None:
    """Install lora_course as the set-up cell does; exit if that changes anything else or needs are unmet."""
    # a copy, because building in the tree would leave folders there and pick up stale ones
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "lora_course", source / "lora_course", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    before = packages(python)
    pip(python, "install", "-q", "--no-deps", source)
    after = packages(python)
    ours = {name for name in after if name.replace("-", "_") == "lora_course"}
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} - ours
    if changed:
        sys.exit(f"installing lora_course changed {sorted(changed)}; a helper package must not")
    check = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True).stdout
    if unmet := [line for line in check.splitlines() if line.replace("-", "_").startswith("lora_course")]:
        sys.exit("\n".join(unmet))
    print(f"== lora_course added; the other {len(before.keys() - ours)} packages are as they were", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["colab", "oldest", "newest", "here"])
    parser.add_argument("--torch", help="a version of torch instead of the one in the list")
    args = parser.parse_args()
    if args.name == "here":
        python = Path(sys.executable)
        pip(python, "install", "-q", *TOOLS)
    else:
        python = environment(args.name, args.torch)
    add_package(python, ROOT / "_build" / f"env-{args.name}")
    # -P and no PYTHONPATH: the installed copy is tested, not the tree beside the tests
    os.environ.pop("PYTHONPATH", None)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # else every kernel prints four lines of warning
    pytest = [python, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests = [folder for folder in TESTS if any((ROOT / folder).glob("**/test_*.py"))]
    run(*pytest, *tests)
    run(*pytest, "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", "120", "chapters", "appendix")
    print(f"== {args.name}: all passed")


if __name__ == "__main__":
    main()
