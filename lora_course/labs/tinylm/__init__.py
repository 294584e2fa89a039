r"""A small language model that ships with the course: pretrained on English docstrings, adapted to other text.

    model = tinylm.load()
    tinylm.bits_per_byte(model, tinylm.corpus("source").test)
    run = tinylm.finetune({"text": "names", "targets": "all", "r": 8, "alpha": 16, "lr": 3e-3, "seed": 0})

`python -m lora_course.labs.tinylm --help` says how weights and recorded results were made.
"""

from lora_course.labs.tinylm.finetuning import Run, corpus, finetune, held_out_bits
from lora_course.labs.tinylm.measure import bits_per_byte, sample
from lora_course.labs.tinylm.model import Shape, TinyLM
from lora_course.labs.tinylm.recording import recorded, start_points, sweep_points
from lora_course.labs.tinylm.trigram import Trigram
from lora_course.labs.tinylm.weights import held_out_english, load, recipe

__all__ = [
    "load",
    "TinyLM",
    "Shape",
    "recipe",
    "bits_per_byte",
    "sample",
    "Trigram",
    "held_out_english",
    "corpus",
    "held_out_bits",
    "finetune",
    "Run",
    "recorded",
    "sweep_points",
    "start_points",
]
