"""Run the notebooks and the unit tests under other package versions than the pinned ones.

    python -m tests.environments.run {colab,oldest,newest,here} [--python PYTHON] [--torch VERSION] [NOTEBOOK ...]

colab, oldest and newest build a new virtual environment in _build/env-NAME from NAME.txt; here uses the
packages of the running Python (inside Colab's own image). In colab and here each notebook starts in an empty
folder and its own set-up cell brings lora_course from git, without a network (see course.py); in the others
lora_course is installed once, with --no-deps. Either way nothing else may change, and its requirements must be
met by what is there. Stops at the first thing that is not so. With NOTEBOOKs only those run, and no unit tests.
TORCH_INDEX names another index for torch, as in the Makefile.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))  # not `from tests...`: another package in Colab's image may be called tests

import course  # noqa: E402

TESTS = ["tests/adapters", "tests/theory", "tests/book", "tests/labs"]
TOOLS = ["pytest", "nbval", "pytest-xdist", "hypothesis"]  # what the tests need, and Colab's image may lack
PYTHONS = ["python3.13", "python3.12", "python3.11"]  # Colab has 3.13: the nearest that is to be had


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


def nearest_python() -> str:
    """The newest Python on the PATH, up to Colab's, that can make environments; else the running one."""
    for name in filter(shutil.which, PYTHONS):
        if not subprocess.run([name, "-c", "import ensurepip, venv"], capture_output=True).returncode:
            return name
    return sys.executable


def environment(name: str, base: str, torch: str | None) -> Path:
    """Build the virtual environment `name` from its list, with the Python `base`; return its Python."""
    folder = ROOT / "_build" / f"env-{name}"
    run(base, "-m", "venv", "--clear", folder)
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


def unchanged(python: Path, before: dict[str, str]) -> None:
    """Exit if anything but lora_course differs from the packages `before`, or if its needs are unmet."""
    after = packages(python)
    ours = {name for name in after if name.replace("-", "_") == "lora_course"}
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} - ours
    if changed or not ours:
        sys.exit(f"installing lora_course changed {sorted(changed)}; a helper package must not")
    check = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True).stdout
    if unmet := [line for line in check.splitlines() if line.replace("-", "_").startswith("lora_course")]:
        sys.exit("\n".join(unmet))


def add_package(python: Path, folder: Path) -> None:
    """Install lora_course from the tree; exit if that changes anything else or needs are unmet."""
    # a copy, because building in the tree would leave folders there and pick up stale ones
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "lora_course", source / "lora_course", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    before = packages(python)
    pip(python, "install", "-q", "--no-deps", source)
    unchanged(python, before)
    print(f"== lora_course added; the other {len(before)} packages are as they were", flush=True)


def as_a_reader(python: Path, folder: Path, notebooks: list[Path]) -> None:
    """Run each notebook from its set-up cell on, which finds no lora_course; exit if it changes other packages."""
    pip(python, "uninstall", "-q", "-y", "lora_course")
    head, env = course.redirected(python, folder)
    before = packages(python)
    for notebook in notebooks:
        pip(python, "uninstall", "-q", "-y", "lora_course")  # a new machine for each, as in Colab
        course.execute(python, notebook, folder, env)
        unchanged(python, before)
        if (commit := course.installed_commit(python)) != head:
            sys.exit(f"{notebook.name}: its set-up cell installed {commit}, not {head}")
    print(f"== {len(notebooks)} notebooks brought lora_course; the other {len(before)} packages are as they were")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["colab", "oldest", "newest", "here"])
    parser.add_argument("notebooks", nargs="*", type=Path, help="only these, and no unit tests")
    parser.add_argument("--python", help="for the new environment (default: the running one; colab: the nearest)")
    parser.add_argument("--torch", help="a version of torch instead of the one in the list")
    args = parser.parse_args()
    folder = ROOT / "_build" / f"env-{args.name}"
    if args.name == "here":
        python = Path(sys.executable)
        pip(python, "install", "-q", *TOOLS)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        base = args.python or (nearest_python() if args.name == "colab" else sys.executable)
        python = environment(args.name, base, args.torch)
    print("==", subprocess.check_output([python, "--version"], text=True).strip(), flush=True)
    # -P and no PYTHONPATH: the installed copy is tested, not the tree beside the tests
    os.environ.pop("PYTHONPATH", None)
    os.environ["LORA_COURSE_STRICT"] = "1"  # a result that differs is an error here, a box on a reader's machine
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # else every kernel prints four lines of warning
    pytest = [python, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    notebooks = args.notebooks or [*sorted((ROOT / "chapters").glob("*.ipynb")), *(ROOT / "appendix").glob("*.ipynb")]
    notebooks = [notebook.resolve() for notebook in notebooks]
    if args.name in ("colab", "here"):
        as_a_reader(python, folder, notebooks)
    else:
        add_package(python, folder)
        run(*pytest, "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", "120", *notebooks)
    if not args.notebooks:
        run(*pytest, *[part for part in TESTS if any((ROOT / part).glob("**/test_*.py"))])
    print(f"== {args.name}: all passed")


if __name__ == "__main__":
    main()
