r"""`make replicate`: run every notebook again and again elsewhere, and write down what its checks then find.

    python tools/replicate.py [--jobs N] [--variants V,V] [--table] [NOTEBOOK ...]

Variants (each in processes of its own): arithmetic (instruction sets and kernels of this processor, by environment),
threads, rounding (what is drawn is moved by a relative 2e-7) and seeds (all is drawn anew); see replica.py. Each run
is kept in _build/replications as it ends, so an interrupted call goes on where it stopped, and only what changed
since (the notebook's computation, a file of the package that it loads) runs again. When a page has all its variants,
its table goes to lora_course/book/replications. At the end the checks that are near their bound are listed.
"""

import argparse
import ast
import csv
import functools
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import types
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from pathlib import Path

from claim_rules import parse_cell
from notebook_rules import ROOT, book_notebooks, read_notebook

from lora_course.book import replications
from lora_course.book.claims import load_claims
from lora_course.book.relation import Relation

KEPT = ROOT / "_build" / "replications"
RECORDED = ROOT / "lora_course" / "book" / "replications"
_OLD = {"ATEN_CPU_CAPABILITY": "default"}
VARIANTS: dict[str, dict[str, str]] = {
    "plain": {},
    # as on a processor of 2008, of 2011 and of 2013; and torch's own kernels alone without vectors
    "arithmetic-1": _OLD | {"MKL_CBWR": "COMPATIBLE", "OPENBLAS_CORETYPE": "Nehalem", "DNNL_MAX_CPU_ISA": "SSE41"},
    "arithmetic-2": {"MKL_CBWR": "AVX", "OPENBLAS_CORETYPE": "Sandybridge", "DNNL_MAX_CPU_ISA": "AVX"} | _OLD,
    "arithmetic-3": {"MKL_CBWR": "AVX2", "OPENBLAS_CORETYPE": "Haswell", "DNNL_MAX_CPU_ISA": "AVX2"}
    | {"ATEN_CPU_CAPABILITY": "avx2"},
    "arithmetic-4": _OLD,
    "threads-2": {},
    "threads-4": {},
    **{f"rounding-{i}": {} for i in range(1, 9)},
    **{f"seeds-{i}": {} for i in range(1, 10)},
}


def environment(variant: str) -> dict[str, str]:
    """The environment variables of a variant; one thread but where threads are what varies."""
    kind, _, number = variant.partition("-")
    threads = number if kind == "threads" else "1"
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    # passive: four threads on two cores must not wait for each other in busy loops
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1", "PYTHONPATH": str(ROOT)}
    return dict.fromkeys(names, threads) | VARIANTS[variant] | quiet


def computation(path: Path) -> str:
    """Hash of what a notebook computes: its code without asserts, and without words and bounds of its guards."""
    digest = hashlib.sha256()
    for _, _, source in read_notebook(path).cells("code"):
        tree = Stripped().visit(parse_cell(source))
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:16]


class Stripped(ast.NodeTransformer):
    """Drops what only judges a result, so that a restated bound does not ask for new runs."""

    def visit_Assert(self, node):
        """An assert computes nothing."""
        return ast.Pass()

    def visit_Expr(self, node):
        """A printed line computes nothing."""
        self.generic_visit(node)
        printed = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "print"
        return ast.Pass() if printed else node

    def visit_Call(self, node):
        """Of observed(sentence, relation, name=value) the values stay."""
        self.generic_visit(node)
        if getattr(node.func, "id", "") == "observed":
            node.args = []
        return node


@functools.cache
def rests_on(path: Path) -> frozenset[str]:
    """Files of the package on which a notebook's results rest: where what it imports is defined, and so on from there.

    A package's __init__ that only hands a name on does not count, nor what makes a page of a notebook.
    """
    code = "\n".join(source for _, _, source in read_notebook(path).cells("code"))
    found, pending = {}, list(imported(parse_cell(code), ""))
    while pending:
        name = pending.pop()
        module = sys.modules.get(name) or importlib.import_module(name)
        if name not in found and not name.startswith("lora_course.book"):
            found[name] = Path(module.__file__).relative_to(ROOT).as_posix()
            if Path(module.__file__).name != "__init__.py":
                pending += imported(ast.parse(Path(module.__file__).read_text("utf8")), module.__package__)
    data = [f.relative_to(ROOT).as_posix() for f in (ROOT / "lora_course" / "labs").rglob("*.csv")]
    texts = any("tinylm" in file for file in found.values())
    return frozenset([*found.values(), *(data if texts else [])])


def imported(tree: ast.AST, package: str):
    """Modules of lora_course that a syntax tree imports, or in which the names are defined that it imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("lora_course"))
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package or None)
            if base.startswith("lora_course"):
                module = importlib.import_module(base)
                for alias in node.names:
                    value = getattr(module, alias.name, None)
                    name = getattr(value, "__module__", None) or getattr(value, "__name__", None)
                    name = value.__name__ if isinstance(value, types.ModuleType) else name
                    yield name if isinstance(name, str) and name.startswith("lora_course") else base


def digest_of(file: str) -> str:
    """Hash of a file of the package; empty if it has gone."""
    path = ROOT / file
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


def kept(path: Path, variant: str) -> dict | None:
    """The kept run of a notebook under a variant, if nothing that it rests on has changed since; else the recorded."""
    file = KEPT / path.stem / f"{variant}.json"
    if file.is_file():
        run = json.loads(file.read_text("utf8"))
        fits = run["computation"] == computation(path)
        if fits and all(run["files"].get(name) == digest_of(name) for name in rests_on(path)):
            return run
    return from_record(path, variant)


def foundation(path: Path) -> str:
    """Hash of the files of the package on which a notebook's results rest."""
    parts = "".join(f"{name} {digest_of(name)}\n" for name in sorted(rests_on(path)))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def from_record(path: Path, variant: str) -> dict | None:
    """The run of a variant as the committed record has it, if the notebook is still that of the record."""
    origin = replications.origins(RECORDED).get(path.stem)
    if not origin or (origin["computation"], origin["foundation"]) != (computation(path), foundation(path)):
        return None
    runs = replications.recorded(path.stem, RECORDED)
    rows = {check: found[variant] for check, found in runs.items() if variant in found}
    versions = {name: origin[name] for name in ("python", "torch", "numpy")}
    seconds = origin["seconds"] / max(1, len({v for found in runs.values() for v in found}))
    return {"rows": rows, "errors": [], "seconds": seconds, "versions": versions} if rows else None


def replicate(path: Path, variant: str) -> dict:
    """Run one notebook under one variant in a new process and keep the result. Raises RuntimeError if it dies."""
    before = computation(path)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run.json"
        command = [sys.executable, str(ROOT / "tools" / "replica.py"), str(path), variant, str(out)]
        done = subprocess.run(command, env=os.environ | environment(variant), capture_output=True, text=True)
        if done.returncode or not out.is_file():
            raise RuntimeError(f"{path.name}, {variant}: {done.stderr[-2000:]}")
        run = json.loads(out.read_text("utf8"))
    run |= {"computation": before, "files": {name: digest_of(name) for name in run.pop("loaded")}}
    file = KEPT / path.stem / f"{variant}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(run), "utf8")
    part.replace(file)  # whole or not at all
    return run


def run_all(paths: list[Path], variants: list[str], executor: Executor, anew: bool = False) -> list[str]:
    """Run what is not kept (or all, `anew`) on any `concurrent.futures` executor, with a bar; return what died."""
    from tqdm import tqdm

    todo = [(path, variant) for variant in variants for path in paths if anew or kept(path, variant) is None]
    runs, died = {executor.submit(replicate, *pair): pair for pair in todo}, []
    with tqdm(total=len(paths) * len(variants), initial=len(paths) * len(variants) - len(todo), unit="run") as bar:
        for run in as_completed(runs):
            bar.set_postfix_str(f"{runs[run][0].stem} {runs[run][1]}")
            bar.update()
            if run.exception():
                died.append(f"{runs[run][0].name}, {runs[run][1]}: {run.exception()}")
    return died


def recordable(run: dict) -> dict[str, dict]:
    """{check: {quantity: value}} of a kept run; an assert that ran often is one row, its smallest margin counts."""
    if "rows" in run:
        return run["rows"]
    rows: dict[str, dict] = {}
    for entry in run["checks"]:
        if not entry["check"].startswith("assert "):
            rows[entry["check"]] = entry["values"]
            continue
        row = rows.setdefault(entry["check"].rpartition("#")[0], {"holds": True})
        row["holds"] = row["holds"] and entry["holds"]
        for name, margin in entry["values"].items():
            row[name] = min(margin, row.get(name, margin))
    return rows


def kept_runs(path: Path, variants: list[str]) -> dict[str, dict]:
    """The kept runs of a notebook, {variant: run}."""
    runs = {variant: kept(path, variant) for variant in variants}
    return {variant: run for variant, run in runs.items() if run}


def write_record(path: Path, runs: dict[str, dict]) -> None:
    """Write the table of a page from its runs {variant: run}, and where it comes from."""
    RECORDED.mkdir(exist_ok=True)
    rows = {variant: recordable(run) for variant, run in runs.items()}
    with (RECORDED / f"{path.stem}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["check", "quantity", *runs])
        for check in dict.fromkeys(check for row in rows.values() for check in row):
            for quantity in dict.fromkeys(name for row in rows.values() for name in row.get(check, {})):
                values = (row.get(check, {}).get(quantity) for row in rows.values())
                writer.writerow([check, quantity, *("" if v is None else in_short(v) for v in values)])
    origin = {
        "computation": computation(path),
        "foundation": foundation(path),
        "commit": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", str(path)) else ""),
        **next(iter(runs.values()))["versions"],
        "machine": platform.machine(),
        "processor": processor(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(sum(run["seconds"] for run in runs.values())),
    }
    known = replications.origins(RECORDED) | {path.stem: origin}
    text = json.dumps({name: known[name] for name in sorted(known)}, indent=1)
    (RECORDED / "origins.json").write_text(text + "\n", "utf8")
    replications.origins.cache_clear()
    replications.recorded.cache_clear()


def in_short(value) -> str:
    """A value as the table has it: integers and truth values in full, others to seven digits."""
    return json.dumps(value) if isinstance(value, (bool, int)) else f"{value:.7g}"


def git(*arguments: str) -> str:
    """What git says; empty if it says nothing."""
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()


def processor() -> str:
    """The processor's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or "unknown"


def judged(path: Path, runs: dict[str, dict]):
    """(check, relation's text, its Replications) of each claim and guard of a notebook, from its runs."""
    relations = {id: claim.relation for id, claim in load_claims().items() if claim.relation}
    notebook = json.loads(path.read_text("utf8"))
    relations |= {guard.check: Relation(guard.relation) for guard in replications.guards(notebook)}
    values = {variant: recordable(run) for variant, run in runs.items()}
    for check in dict.fromkeys(check for row in values.values() for check in row if check in relations):
        measured = {variant: row.get(check, {}) for variant, row in values.items()}
        yield check, relations[check].text, replications.Replications(relations[check], measured), measured


def table(paths: list[Path], variants: list[str]) -> list[str]:
    """Lines about what broke, raised or is thinner than it should be."""
    lines = []
    for path in paths:
        runs = kept_runs(path, variants)
        lines.append(f"{path.stem}: {len(runs)} of {len(variants)} variants")
        for variant, run in runs.items():
            for error in run["errors"]:
                lines.append(f"  RAISED {variant}, cell {error['cell']}: {error['error'].strip().splitlines()[-1]}")
            for check, row in recordable(run).items():
                if check.startswith("assert ") and not row["holds"]:
                    lines.append(f"  BROKE {check} in {variant} (margin {row.get('margin')})")
        for check, relation, result, measured in judged(path, runs):
            broke = [v for v, holds in result.held.items() if not holds]
            if broke or result.distance < replications.ENOUGH:
                lines.append(f"  {'BROKE' if broke else 'THIN '} {check}: {relation}  [{result.distance:.1f} spreads]")
                for name in dict.fromkeys(name for values in measured.values() for name in values):
                    values = (f"{v}={in_short(row[name])}" for v, row in measured.items() if name in row)
                    lines.append(f"      {name}: {' '.join(values)}")
                if broke:
                    lines.append(f"      broke in {', '.join(broke)}")
    return lines


def pair(day: int) -> list[Path]:
    """Two notebooks, another pair each day (days since 1970), for the second arithmetic of `make test`."""
    paths = [ROOT / notebook.file for notebook in book_notebooks()]
    pairs = [paths[i : i + 2] for i in range(0, len(paths), 2)]
    return pairs[day % len(pairs)]


def broken(path: Path, variant: str) -> list[str]:
    """What does not hold in the kept run of a notebook under a variant, with values and bounds."""
    run = kept(path, variant)
    lines = [f"cell {e['cell']!r}: {e['error'].strip().splitlines()[-1]}" for e in run["errors"]]
    lines += [f"{check} does not hold" for check, row in recordable(run).items() if row.get("holds") is False]
    for check, relation, result, measured in judged(path, {variant: run}):
        if not result.held[variant]:
            lines.append(f"{check}: {relation} does not hold: {measured[variant]}")
    return lines


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="only these (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once (default: cores)")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="only these, with commas between")
    parser.add_argument("--table", action="store_true", help="run nothing: list what the kept runs found")
    parser.add_argument("--partial", action="store_true", help="also record pages of which not all variants have run")
    parser.add_argument("--second", action="store_true", help="two notebooks, by date, in a second arithmetic; strict")
    args = parser.parse_args()
    paths = [path.resolve() for path in args.notebooks] or [ROOT / notebook.file for notebook in book_notebooks()]
    variants = args.variants.split(",")
    if unknown := [variant for variant in variants if variant not in VARIANTS]:
        parser.error(f"--variants has {unknown}; known are {', '.join(VARIANTS)}")
    if args.jobs < 1:
        parser.error(f"--jobs is {args.jobs}; it must be at least 1")
    if args.second:
        paths, variants = pair(int(time.time() // 86400)), ["arithmetic-1"]
    died = []
    if not args.table:
        with ThreadPoolExecutor(args.jobs) as pool:
            died = run_all(paths, variants, pool, anew=args.second)
    if args.second:
        lines = died + [
            f"{path.name}, {line}" for path in paths if kept(path, variants[0]) for line in broken(path, variants[0])
        ]
        print("\n".join(lines) or f"  {' and '.join(path.name for path in paths)}: all holds in a second arithmetic")
        return 1 if lines else 0
    for path in paths:
        runs = kept_runs(path, list(VARIANTS))
        if set(runs) == set(VARIANTS) or (args.partial and "plain" in runs):
            write_record(path, runs)
    print("\n".join([*table(paths, variants), *died]))
    return 1 if died else 0


if __name__ == "__main__":
    sys.exit(main())
