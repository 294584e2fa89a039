r"""The recorded sweeps of the language model: their chapter-length version does not fit a chapter.

`python -m lora_course.labs.tinylm --sweep NAME` runs one and writes `NAME.csv` and `NAME.json` (provenance); two of
its rows are run again by a test. "sweep": two texts, all targets, ranks and learning rates, three seeds. "starts": the
far text, one rank, all starts and learning rates, three seeds.
"""

import csv
import hashlib
import json
from concurrent.futures import Executor
from functools import partial
from importlib.resources import files
from pathlib import Path

import torch

from lora_course.labs.provenance import provenance
from lora_course.labs.sweep import SweepError, grid, sweep
from lora_course.labs.tinylm.finetuning import corpus, finetune, held_out_bits
from lora_course.labs.tinylm.weights import held_out_english, load

TARGETS = ["attention", "mlp", "all"]
RANKS, ALPHA, SEEDS = [1, 2, 4, 16, 64], 16, [0, 1, 2]
RATES = {"source": [3e-4, 1e-3, 3e-3, 1e-2], "names": [1e-3, 3e-3, 1e-2, 3e-2]}  # the far text wants higher ones
FULL_RATES = {"source": [3e-5, 1e-4, 3e-4, 1e-3], "names": [1e-4, 3e-4, 1e-3, 3e-3]}
STEPS = (10, 25, 50, 100)
SWEEPS = ["sweep", "starts"]
MEASURED = ["step", "new_bpb", "old_bpb", "trained"]
FIELDS = ["text", "targets", "r", "alpha", "lr", "seed", *MEASURED]
STARTS, START_RANK, START_STEPS = [None, "b_random", "pissa", "milora", "lora_ga"], 8, (25, 50)
START_RATES = [5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2]


def sweep_points() -> list[dict]:
    r"""The points of the recorded sweep, text by text: {"text", "targets", "r", "alpha", "lr", "seed"}."""
    points = []
    for text in RATES:
        points += grid(text=[text], targets=TARGETS, r=RANKS, alpha=[ALPHA], lr=RATES[text], seed=SEEDS)
        points += grid(text=[text], targets=["full"], r=[None], alpha=[None], lr=FULL_RATES[text], seed=SEEDS)
    return points


def start_points() -> list[dict]:
    r"""The points of the recorded "starts": {"text", "targets", "start", "r", "alpha", "lr", "seed"}."""
    fixed = {"text": "names", "targets": "all"}
    return grid(**fixed, start=STARTS, r=START_RANK, alpha=ALPHA, lr=START_RATES, seed=SEEDS)


def _sweep(name):
    """Return (points, steps of the measurements) of a recorded sweep."""
    if name not in SWEEPS:
        raise ValueError(f"name={name!r} must be one of {', '.join(SWEEPS)}")
    return (sweep_points(), STEPS) if name == "sweep" else (start_points(), START_STEPS)


def rows_of(point: dict, evaluate_at: tuple[int, ...] = STEPS) -> list[dict]:
    r"""One run as rows of the CSV, one for each step of `evaluate_at`; on one thread, so that digits do not depend
    on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run = finetune(point, evaluate_at)
    finally:
        torch.set_num_threads(threads)
    return [
        {**point, "step": step, "new_bpb": round(new, 4), "old_bpb": round(old, 4), "trained": run.trained}
        for step, new, old in run.curve
    ]


def record(folder: str | Path, executor: Executor | None = None, name: str = "sweep") -> None:
    r"""Run a sweep of SWEEPS, write `NAME.csv` and `NAME.json` into `folder`; points that the files have are kept.

    Each run is told in `NAME.json`, under "runs". Raises `NotADirectoryError` if `folder` does not exist,
    `ValueError` for another name or if its files come from another text (another version of Python), `SweepError` if
    points failed; the others are written then.
    """
    folder, told, (points, steps) = Path(folder), provenance("adapters", "labs/text.py", "labs/tinylm"), _sweep(name)
    if not folder.is_dir():
        raise NotADirectoryError(f"folder={str(folder)!r} must be a directory that exists")
    before = {text: held_out_bits(load(), text) for text in dict.fromkeys(point["text"] for point in points)}
    about = {
        "before": {text: {"new_bpb": round(new, 4), "old_bpb": round(old, 4)} for text, (new, old) in before.items()},
        "text": text_fingerprint(),
        "runs": [],
    }
    done = {}
    if (folder / f"{name}.csv").is_file():
        rows, earlier = recorded(folder, name)
        if earlier["text"] != about["text"]:
            raise ValueError(f"folder={str(folder)!r} has a sweep over another text; give an empty folder")
        about["runs"] = earlier["runs"]
        for row in rows:
            done.setdefault(_key(row), []).append(row)
    missing = [point for point in points if _key(point) not in done]
    failed = None
    try:
        found = sweep(partial(rows_of, evaluate_at=steps), missing, executor=executor)
    except SweepError as error:  # what took an hour is kept; the next run takes up the rest
        found, failed = [rows for rows in error.results if rows is not None], error
    done |= {_key(rows[0]): rows for rows in found}
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*points[0], *MEASURED], lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for point in points for row in done.get(_key(point), []))
    about["runs"] = [*about["runs"], {"points": len(found), **told()}]
    (folder / f"{name}.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    if failed:
        raise failed


def _key(row):
    return row.get("start"), *(row[name] for name in ("text", "targets", "r", "alpha", "lr", "seed"))


def text_fingerprint() -> str:
    r"""Hash of the text that a fine-tuning reads here, 12 hex digits: it differs between versions of Python."""
    read = [side for text in RATES for side in (corpus(text).train, corpus(text).test)]
    parts = [*read, held_out_english(quick=True)]
    return hashlib.sha256(b"\0\0".join(part.numpy().tobytes() for part in parts)).hexdigest()[:12]


def recorded(folder: str | Path | None = None, name: str = "sweep") -> tuple[list[dict], dict]:
    r"""Rows of a recorded sweep of SWEEPS (of `folder`; None: as shipped), and what `record` tells about them.

    A row has the keys of its point and of MEASURED, numbers as numbers, None where a field does not apply; bits per
    byte are measured on held-out text after `step` steps. The second is {"before", "text", "runs"}: bits per byte
    before any training, the fingerprint of the text, and commit, versions and seconds of each run.
    """
    here = files(__package__) if folder is None else Path(folder)
    kinds = {"text": str, "targets": str, "start": str, "r": int, "seed": int, "step": int, "trained": int}
    with (here / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            {key: kinds.get(key, float)(value) if value else None for key, value in row.items()}
            for row in csv.DictReader(file)
        ]
    return rows, json.loads((here / f"{name}.json").read_text(encoding="utf-8"))
