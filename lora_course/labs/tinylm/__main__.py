r"""How the shipped files of the language model were made: `python -m lora_course.labs.tinylm --help`."""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import torch

from lora_course.labs.tinylm.pretrain import pretrain
from lora_course.labs.tinylm.recording import SWEEPS, record


def main(arguments=None) -> int:
    r"""Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lora_course.labs.tinylm", description=__doc__)
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--pretrain", action="store_true", help="weights, recipe and loss curve (15 minutes)")
    hours = "a recorded fine-tuning sweep (the one of that name: an hour on two cores; starts: a quarter)"
    task.add_argument("--sweep", nargs="?", const="sweep", choices=SWEEPS, help=hours)
    parser.add_argument("--folder", default=".", help="where the files go; it must exist")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes of the sweep")
    options = parser.parse_args(arguments)
    try:
        if options.pretrain:
            torch.set_num_threads(options.jobs)
            pretrain(folder=options.folder)
        else:
            with ProcessPoolExecutor(options.jobs) as executor:
                record(options.folder, executor, options.sweep)
    except OSError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
