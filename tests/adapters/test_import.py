"""``import lora_course.adapters`` loads torch and nothing heavier, and lists what it offers."""

import json
import subprocess
import sys

import lora_course.adapters

CODE = """
import json, sys
import torch
before = set(sys.modules)
import lora_course.adapters
print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))
"""


def test_the_import_loads_no_other_package():  # its seconds stand in `make bench`
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    packages = json.loads(done.stdout)
    assert set(packages) - set(sys.stdlib_module_names) == {"lora_course"}


def test_every_public_name_exists_and_has_a_docstring():
    for name in lora_course.adapters.__all__:
        assert getattr(lora_course.adapters, name).__doc__


def test_what_changes_a_model_in_place_says_so_in_its_first_line():
    adapters = lora_course.adapters
    layer = adapters.LoRALinear
    for f in (adapters.inject, adapters.remove, adapters.merge_all, adapters.unmerge_all):
        assert "in place" in f.__doc__.splitlines()[0]
    for f in (layer, layer.merge, layer.unmerge, layer.reset_parameters):
        assert "in place" in f.__doc__.splitlines()[0]
