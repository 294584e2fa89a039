"""Damaged adapter files: refused by name, or read whole; never a crash, a hang or half an adapter.

500 files in `make test`; LORA_COURSE_FUZZ=10000 (as in `make fuzz`) makes it 10,000.
"""

import copy
import json
import os
import random
import struct
import time
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save
from torch import nn

from lora_course.adapters.adalora import SVDLinear
from lora_course.adapters.adapter import Adapter
from lora_course.adapters.dora import DoRALinear
from lora_course.adapters.files import load_adapter, save_adapter
from lora_course.adapters.install import install
from lora_course.adapters.layer import LoRALinear
from lora_course.adapters.pair import CONFIG, TENSORS, AdapterFileError
from lora_course.adapters.vera import VeRALinear, VeRAProjection

COUNT = max(500, int(os.environ.get("LORA_COURSE_FUZZ", "500")))
VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2,
    3,
    2**70,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "LORA",
    "q",
    "(a+)+$",
    "../q",
    [],
    [1],
    ["q"],
]
VALUES += [["q", "x"], ["../q"], {}, {"q": 3}, {"(a|a)*b": 2}, {"q": []}, {"a": {"b": [[[]]]}}, "\ud800", "x" * 10**5]
SHAPES = [[], [0], [3], [2, 4], [4, 2], [1, 2, 4], [2**40, 2**40], [-1, 8], [2.5], ["2", 4], None, [8]]
DTYPES = ["F64", "F32", "BF16", "F16", "I64", "U8", "BOOL", "F8_E4M3", "X", "", None, 3]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.up = nn.Linear(4, 4), nn.Linear(4, 6, bias=False)


def cut(data, rng):
    return data[: rng.randrange(len(data))]


def flip(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 4, 64])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def splice(data, rng):
    at, end = sorted(rng.randrange(len(data) + 1) for _ in "ab")
    return rng.choice(
        [data[:at] + data[end:], data[:end] + data[at:], data[:at] + rng.randbytes(rng.randrange(40)) + data[at:]]
    )


def noise(data, rng):
    return rng.randbytes(rng.choice([0, 1, 7, 8, 9, 200, len(data)]))


def length(data, rng):
    return (
        struct.pack("<Q", rng.choice([0, 1, len(data), len(data) - 8, 2**25, 2**63, rng.randrange(2**64)])) + data[8:]
    )


def header(data, rng):
    n = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + n])
    key = rng.choice([key for key in table if key != "__metadata__"])
    field = rng.choice(["dtype", "shape", "data_offsets", "name", "drop", "twice", "metadata", "deep"])
    if field == "name":
        table[
            rng.choice(
                ["", "q", "base_model.model..lora_A.weight", key + ".", key.replace("q", "../q"), "__metadata__"]
            )
        ] = table.pop(key)
    elif field == "drop":
        del table[key]
    elif field == "twice":
        table[key.replace("lora_A", "lora_B")] = table[key]
    elif field == "metadata":
        table["__metadata__"] = rng.choice(
            [None, 3, {}, {"format": "tf"}, {"lora_course.config_sha256": "0"}, {"a": 1}]
        )
    elif field == "deep":
        table = "[" * 5000
    else:
        table[key][field] = rng.choice(
            {"dtype": DTYPES, "shape": SHAPES}.get(field, [[0, 0], [0, 2**60], [-4, 4], [64, 32], [1], "x"])
        )
    text = (table if isinstance(table, str) else json.dumps(table)).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + n :]


def tensors(pair, rng):
    """Other tensors under the right keys, in a valid file."""
    table = dict(pair[2])
    key = rng.choice(sorted(table))
    t = table[key].clone()
    change = rng.randrange(7)
    if change == 0:
        t.view(-1)[rng.randrange(t.numel())] = rng.choice([float("nan"), float("inf"), -float("inf")])
    elif change == 1:
        t = t.reshape(-1, len(t)).contiguous()
    elif change == 2:
        t = torch.cat([t, t])
    elif change == 3:
        t = t.to(rng.choice([torch.int32, torch.bool, torch.int64, torch.uint8]))
    elif change == 4:
        t = torch.zeros(rng.choice([(0,), (2, 0), (1,) * 9, ()]))
    elif change == 5:
        t = torch.full(t.shape, 1e300, dtype=torch.float64)
    table[rng.choice(["x", key + ".weight", "q.lora_A.weight"]) if change == 6 else key] = t
    return pair[0], save(table)


def field(pair, rng):
    config = json.loads(pair[0])
    key = rng.choice([*config, "use_dora", "rank_pattern", "target_parameters", "layers_to_transform", "\x00"])
    if rng.random() < 0.2:
        config.pop(key, None)
    else:
        config[key] = rng.choice(VALUES)
    return json.dumps(config).encode(), pair[1]


def damage(pair, rng):
    """Return what was done, and the two files after it."""
    how = rng.choice([cut, flip, splice, noise, length, header, header, tensors, tensors, field, field, field])
    if how in (tensors, field):
        return how.__name__, *how(pair, rng)
    which = 1 if how in (length, header) else rng.randrange(2)
    files = [pair[0], pair[1]]
    files[which] = how(files[which], rng)
    return f"{how.__name__} {(CONFIG, TENSORS)[which]}", *files


PAIR = VeRAProjection(5, 7, 2)
KINDS = [
    lambda layer: LoRALinear(layer, 2, 3, generator=0),
    lambda layer: DoRALinear(layer, 2, 3),
    lambda layer: SVDLinear(layer, 2, 3),
    lambda layer: VeRALinear(layer, PAIR),
]


@pytest.fixture
def cases(tmp_path):
    """Of each kind: configuration, file (ours, and without sums, as PEFT's), tensors, and models that they fit."""
    torch.manual_seed(0)
    bare, found = Net(), []
    for make in KINDS:
        full = copy.deepcopy(bare)
        install(full, {"q": make, "up": make})
        save_adapter(full, tmp_path / "good")
        config, ours = ((tmp_path / "good" / name).read_bytes() for name in (CONFIG, TENSORS))
        table = load_file(tmp_path / "good" / TENSORS)
        found += [(config, data, table, (bare, full)) for data in (ours, save(table))]
    return found


def state(model):
    return [(name, type(m)) for name, m in model.named_modules()], {k: v.clone() for k, v in model.state_dict().items()}


def test_damaged_files_are_refused_or_read_whole(cases, tmp_path, record_property):
    folder = tmp_path / "damaged"
    folder.mkdir()
    counts, started, slowest = Counter(), time.perf_counter(), 0.0
    for seed in range(COUNT):
        rng = random.Random(seed)
        case = rng.choice(cases[:2] + cases)  # LoRA twice as often
        how, config, data = damage(case, rng)
        (folder / CONFIG).write_bytes(config)
        (folder / TENSORS).write_bytes(data)
        model = copy.deepcopy(rng.choice(case[3]))
        before, clock = state(model), time.perf_counter()
        try:
            names = load_adapter(model, folder)
        except AdapterFileError as error:
            after = state(model)
            assert str(folder) in str(error) and len(str(error)) < 2000, (seed, how, error)
            assert after[0] == before[0] and after[1].keys() == before[1].keys(), (seed, how)
            assert all(torch.equal(after[1][k], v) for k, v in before[1].items()), (seed, how)
            counts["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"seed {seed}, {how}: {type(error).__name__}: {error}") from error
        else:
            assert set(names) == {n for n, m in model.named_modules() if isinstance(m, Adapter)}, (seed, how)
            assert all(torch.isfinite(p).all() for p in model.parameters()), (seed, how)
            counts["harmless, read whole"] += 1
        slowest = max(slowest, time.perf_counter() - clock)
    assert slowest < 5 and counts["refused"] > 0.6 * COUNT
    seconds, says = time.perf_counter() - started, ", ".join(f"{n} {what}" for what, n in counts.items())
    says = f"load_adapter: {COUNT} damaged files, {says}; {seconds:.1f} s, slowest {slowest * 1e3:.0f} ms"
    record_property("says", says)  # tests/conftest.py prints it at the end


def test_a_damaged_tensor_of_ours_never_goes_unnoticed(cases, tmp_path):
    good, bare = cases[0], cases[0][3][0]
    start = 8 + int.from_bytes(good[1][:8], "little")
    (tmp_path / CONFIG).write_bytes(good[0])
    for at in range(start, len(good[1]), 5):
        data = bytearray(good[1])
        data[at] ^= 1
        (tmp_path / TENSORS).write_bytes(data)
        with pytest.raises(AdapterFileError, match="not those that were saved"):
            load_adapter(bare, tmp_path)
