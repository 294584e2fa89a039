"""An adapter file is read whole or not at all; what is wrong is said by file and key; a killed save loses nothing."""

import copy
import json
import os
import pickle
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lora_course.adapters import inject, merge_all
from lora_course.adapters.conv import LoRAConv2d
from lora_course.adapters.dora import DoRALinear
from lora_course.adapters.files import load_adapter, save_adapter
from lora_course.adapters.install import install
from lora_course.adapters.layer import LoRALinear
from lora_course.adapters.nf4 import NF4Linear, QLoRALinear
from lora_course.adapters.origin import start_all
from lora_course.adapters.pair import CONFIG, SEAL, TENSORS, AdapterFileError

A0, B0 = (f"base_model.model.blocks.0.attn.q_proj.lora_{factor}.weight" for factor in "AB")


@pytest.fixture
def saved(tiny_lm, stir, tmp_path):
    """A folder with the adapter of a model, the model, and the model without it."""
    base = copy.deepcopy(tiny_lm)
    inject(tiny_lm, ["q_proj", "v_proj", "mlp"], r=2, alpha=3, generator=1)
    stir(tiny_lm)
    save_adapter(tiny_lm, tmp_path / "adapter", base_model_name="tiny")
    return tmp_path / "adapter", tiny_lm, base


def rewrite(folder, edit_config=None, edit_tensors=None):
    """Edit both files as another program would, without a seal."""
    config, tensors = json.loads((folder / CONFIG).read_text()), load_file(folder / TENSORS)
    if edit_config:
        edit_config(config)
    if edit_tensors:
        edit_tensors(tensors)
    (folder / CONFIG).write_text(json.dumps(config))
    save_file(tensors, folder / TENSORS)


def snapshot(model):
    return {name: p.clone() for name, p in model.state_dict().items()}, [type(m) for m in model.modules()]


def refuses(model, folder, *words):
    """Loading fails, names the words, and the model is as it was: its modules, numbers and flags."""
    before, kinds = snapshot(model)
    flags = [p.requires_grad for p in model.parameters()]
    with pytest.raises(AdapterFileError) as error:
        load_adapter(model, folder)
    assert all(word in str(error.value) for word in words), str(error.value)
    after, kinds_after = snapshot(model)
    assert kinds == kinds_after and before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert flags == [p.requires_grad for p in model.parameters()]


def test_a_saved_adapter_gives_an_unadapted_model_the_same_function(saved, tokens):
    folder, model, base = saved
    names = load_adapter(base, folder)
    assert names == tuple(n for n, m in model.named_modules() if isinstance(m, LoRALinear))
    assert torch.equal(base(tokens), model(tokens))
    assert {n for n, p in base.named_parameters() if p.requires_grad} == {
        n for n, p in model.named_parameters() if p.requires_grad
    }
    assert json.loads((folder / CONFIG).read_text())["base_model_name_or_path"] == "tiny"
    assert sorted(os.listdir(folder)) == [CONFIG, TENSORS]


def test_an_adapted_model_gets_the_numbers_in_the_same_parameters(saved, tokens, stir):
    folder, model, base = saved
    inject(base, ["q_proj", "v_proj", "mlp"], r=2, alpha=3)
    A = base.blocks[0]["mlp"].lora_A
    load_adapter(stir(base, seed=5), folder)
    assert base.blocks[0]["mlp"].lora_A is A and torch.equal(base(tokens), model(tokens))


def test_each_layer_keeps_its_own_rank_scaling_and_class(tiny_lm, stir, tokens, tmp_path):
    base = copy.deepcopy(tiny_lm)
    makers = {
        "blocks.0.mlp": lambda layer: LoRALinear(layer, 2, 3, dropout=0.5),
        "blocks.1.mlp": lambda layer: LoRALinear(layer, 5, 4.25),
        "blocks.1.attn.q_proj": lambda layer: LoRALinear(layer, 3, 4, rslora=True),
    }
    install(tiny_lm, makers)
    save_adapter(stir(tiny_lm).eval(), tmp_path)
    load_adapter(base.eval(), tmp_path)
    assert torch.allclose(base(tokens), tiny_lm(tokens), rtol=0, atol=1e-12)
    assert [base.get_submodule(name).r for name in makers] == [2, 5, 3]
    assert base.blocks[1]["mlp"].alpha == 4.25 and base.blocks[0]["mlp"].dropout == 0.5


def test_magnitudes_convolutions_and_nf4(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 6))
    model[2] = NF4Linear(model[2])
    base, x = copy.deepcopy(model), torch.randn(7, 3, 4, 4)
    install(model, {"0": lambda la: LoRAConv2d(la, 2, 3), "2": lambda la: QLoRALinear(la, 2, 3)})
    nn.init.normal_(model[0].lora_B), nn.init.normal_(model[2].lora_B)
    save_adapter(model, tmp_path / "a")
    load_adapter(other := copy.deepcopy(base), tmp_path / "a")
    assert torch.equal(other(x), model(x)) and type(other[2]) is QLoRALinear
    model = copy.deepcopy(base)
    install(model, {"3": lambda la: DoRALinear(la, 2, 3)})
    nn.init.normal_(model[3].lora_B), nn.init.normal_(model[3].lora_magnitude_vector)
    save_adapter(model, tmp_path / "b")
    load_adapter(base, tmp_path / "b")
    assert torch.allclose(base(x), model(x))


def test_a_layer_that_is_used_twice_is_one_layer(tmp_path):
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    base = copy.deepcopy(model)
    inject(model, ["0"], r=2, alpha=3)
    nn.init.ones_(model[0].lora_B)
    assert save_adapter(model, tmp_path) == ("0",)
    load_adapter(base, tmp_path)
    assert base[0] is base[2] and torch.equal(base(torch.ones(1, 3)), model(torch.ones(1, 3)))


def test_names_of_which_one_ends_with_the_other_are_kept_apart(tmp_path):
    model = nn.ModuleDict({"a": nn.ModuleDict({"q": nn.Linear(2, 2)}), "q": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    base = copy.deepcopy(model)
    install(model, {"q": lambda layer: LoRALinear(layer, 1, 2), "b": lambda layer: LoRALinear(layer, 2, 2)})
    save_adapter(model, tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text())["target_modules"] == "b|q"
    assert load_adapter(base, tmp_path) == ("b", "q") and type(base["a"]["q"]) is nn.Linear


def test_a_merged_adapter_is_saved_but_not_overwritten(saved, tokens, tmp_path):
    folder, model, base = saved
    output = model(tokens)
    merge_all(model, keep_base=True)
    save_adapter(model, tmp_path / "again")
    load_adapter(base, tmp_path / "again")
    assert torch.allclose(base(tokens), output, rtol=0, atol=1e-12)
    with pytest.raises(RuntimeError, match="blocks.0.attn.q_proj is merged"):
        load_adapter(model, folder)


def test_a_started_adapter_is_not_overwritten_and_a_meta_model_not_filled(saved):
    folder, _, base = saved
    meta = copy.deepcopy(base).to("meta")
    inject(base, ["q_proj", "v_proj", "mlp"], r=2, alpha=3)
    start_all(base, "pissa")
    with pytest.raises(RuntimeError, match="is started: undo_start it first"):
        load_adapter(base, folder)
    with pytest.raises(ValueError, match="meta device"):
        load_adapter(meta, folder)


def drop(key):
    return lambda table: table.pop(key)


def put(key, value):
    return lambda table: table.update({key: value})


BAD_CONFIGS = {
    "unknown type": (put("peft_type", "LOHA"), "peft_type is 'LOHA'"),
    "no type": (drop("peft_type"), "peft_type is None"),
    "type of a wrong type": (put("peft_type", ["LORA"]), "peft_type"),
    "no targets": (drop("target_modules"), "target_modules"),
    "empty targets": (put("target_modules", []), "target_modules"),
    "numbers as targets": (put("target_modules", [1]), "target_modules"),
    "targets that match nothing": (put("target_modules", ["q_proj", "v_proj", "mlp", "k_projx"]), "'k_projx'"),
    "a target that matches nothing": (put("target_modules", "nothing"), "target_modules: 'nothing'"),
    "too few targets": (put("target_modules", ["q_proj", "v_proj"]), "target_modules does not name"),
    "r as text": (put("r", "2"), "r: it must be an integer"),
    "r = 0": (put("r", 0), "r: it must be an integer"),
    "r beyond all bounds": (put("r", 10**400), "r: it must be an integer"),
    "r = true": (put("r", True), "r: it must be an integer"),
    "alpha of NaN": (put("lora_alpha", float("nan")), "lora_alpha: alpha must be"),
    "alpha of a wrong type": (put("lora_alpha", None), "lora_alpha: alpha must be"),
    "negative dropout": (put("lora_dropout", -1), "lora_dropout: dropout must be"),
    "rslora as text": (put("use_rslora", "yes"), "use_rslora"),
    "patterns as a list": (put("rank_pattern", [1]), "rank_pattern: it must be a JSON object"),
    "a rank that is none": (put("rank_pattern", {"mlp": "x"}), "rank_pattern: it must be an integer"),
    "an expression that could take forever": (put("alpha_pattern", {"(a+)+b": 2}), "alpha_pattern", "not run"),
    "trained biases": (put("bias", "all"), "bias must be one of 'none'"),
    "modules saved whole": (put("modules_to_save", ["head"]), "'modules_to_save' is ['head']"),
    "a field of the future": (put("use_more", True), "'use_more' is True"),
    "another base": (put("init_lora_weights", "pissa_niter_4"), "changes the base weights"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_bad_field_is_named(case, saved):
    folder, _, base = saved
    edit, *words = BAD_CONFIGS[case]
    rewrite(folder, edit_config=edit)
    refuses(base, folder, str(folder / CONFIG), *words)


def entry(key, value):
    def edit(tensors):
        tensors[key][0, 0] = value

    return edit


BAD_TENSORS = {
    "missing": (drop(B0), f"{B0}: missing"),
    "extra": (put("base_model.model.head.lora_A.bias", torch.ones(2)), "head.lora_A.bias': unexpected"),
    "foreign": (put("transformer.q.lora_down.weight", torch.ones(2)), "'transformer.q.lora_down.weight': unexpected"),
    "rank": (put(A0, torch.ones(3, 6)), f"{A0}: its shape is [3, 6]", "make it [2, 6]"),
    "shape": (put(B0, torch.ones(2, 8)), f"{B0}: its shape is [2, 8]", "make it [8, 2]"),
    "dimension": (put(A0, torch.ones(12)), f"{A0}: its shape is [12]"),
    "type": (put(A0, torch.ones(2, 6, dtype=torch.int64)), f"{A0}: its type is I64"),
    "NaN": (entry(A0, float("nan")), f"{A0}: has entries that are not finite"),
    "Inf": (entry(B0, float("-inf")), f"{B0}: has entries that are not finite"),
    "no such layer": (put("base_model.model.../x.lora_A.weight", torch.ones(1)), ".../x.lora_B.weight: missing"),
}


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("case", BAD_TENSORS)
def test_a_bad_tensor_is_named(case, adapted, saved):
    folder, _, base = saved
    edit, *words = BAD_TENSORS[case]
    rewrite(folder, edit_tensors=edit)
    if adapted:
        inject(base, ["q_proj", "v_proj", "mlp"], r=2, alpha=3)
    refuses(base, folder, str(folder / TENSORS), *words)


@pytest.mark.parametrize(
    ("targets", "r", "alpha", "words"),
    [
        (["q_proj", "v_proj"], 2, 3, "no adapter 'blocks.0.mlp'"),
        (["q_proj", "v_proj", "mlp", "head"], 2, 3, "head.*: missing"),
        (["q_proj", "v_proj", "mlp"], 3, 3, "lora with r = 2, where the model has lora with r = 3"),
        (["q_proj", "v_proj", "mlp"], 2, 5, "lora_alpha: scaling 1.5"),
    ],
)
def test_an_adapter_that_the_model_has_must_be_the_same(targets, r, alpha, words, saved):
    folder, _, base = saved
    inject(base, targets, r=r, alpha=alpha)
    refuses(base, folder, words)


def test_a_model_with_other_layers_is_refused(saved):
    folder, _, base = saved
    base.blocks[1]["mlp"] = nn.Embedding(3, 6)
    refuses(base, folder, "blocks.1.mlp.lora_A.weight", "it is a Embedding, not an nn.Linear")
    del base.blocks[1]["mlp"]
    refuses(base, folder, "the model has no layer 'blocks.1.mlp'")
    base.blocks[1]["mlp"] = nn.Linear(7, 6)
    refuses(base, folder, "blocks.1.mlp.lora_A.weight: its shape is [2, 6]")


def test_a_layer_that_target_modules_names_must_have_tensors(saved):
    folder, _, base = saved
    base.blocks[1]["more"] = nn.ModuleDict({"mlp": nn.Linear(6, 6)})
    refuses(base, folder, "blocks.1.more.mlp.*: missing")


def test_numbers_that_only_a_wider_type_can_hold_are_refused(saved):
    folder, _, base = saved
    rewrite(folder, edit_tensors=lambda t: t.update({A0: torch.full((2, 6), 1e300, dtype=torch.float64)}))
    refuses(base.float(), folder, A0, "not finite in torch.float32")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_types_of_numbers_are_converted(dtype, saved, tokens):
    folder, model, base = saved
    rewrite(folder, edit_tensors=lambda t: t.update({k: v.to(dtype) for k, v in t.items()}))
    load_adapter(base, folder)
    assert base.blocks[0]["mlp"].lora_A.dtype == torch.float64
    assert torch.allclose(base(tokens), model(tokens), rtol=0.05, atol=0.05)


class Bomb:
    def __reduce__(self):
        return os.abort, ()


def test_a_pickle_is_never_read(saved):
    folder, _, base = saved
    (folder / TENSORS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    refuses(base, folder, "adapter_model.bin: a pickle is not read")
    (folder / "adapter_model.bin").rename(folder / TENSORS)
    refuses(base, folder, TENSORS, "damaged or no safetensors file")


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_files_that_are_missing_or_lead_elsewhere(name, saved, tmp_path):
    folder, _, base = saved
    path = folder / name
    path.rename(tmp_path / name)
    refuses(base, folder, f"{path}: there is no such file")
    for target in (tmp_path / name, f"../{name}"):
        path.symlink_to(target)
        refuses(base, folder, f"{path}: leads out of its folder")
        path.unlink()
    path.symlink_to(path)
    refuses(base, folder, str(path))
    path.unlink()
    path.mkdir()
    refuses(base, folder, f"{path}: is no regular file")
    path.rmdir()
    os.mkfifo(path)
    refuses(base, folder, f"{path}: is no regular file")  # reading it would wait forever
    path.unlink()
    (tmp_path / name).rename(path)
    path.rename(folder / "other")
    path.symlink_to("other")
    assert load_adapter(base, folder)  # a link within the folder is none of the above


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (b"\x00" * 8, "claims 0 bytes"),
        (b"\xff" * 64, "its header claims"),
        ((2**62).to_bytes(8, "little") + b"{}", "its header claims"),
        ((2).to_bytes(8, "little") + b"[]", "damaged"),
        ((2).to_bytes(8, "little") + b"{}", "holds no tensors"),
    ],
)
def test_bytes_that_are_no_safetensors_file(content, words, saved):
    folder, _, base = saved
    rewrite(folder)
    (folder / TENSORS).write_bytes(content)
    refuses(base, folder, str(folder / TENSORS), words)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 10**6, b"9" * 5000, b'"' + b"x" * 2**22])
def test_bytes_that_are_no_configuration(content, saved):
    folder, _, base = saved
    rewrite(folder)
    (folder / CONFIG).write_bytes(content)
    refuses(base, folder, str(folder / CONFIG))


def test_files_of_two_saves_are_no_pair_but_notes_may_be_edited(saved, tiny_lm, tmp_path, stir):
    folder, model, base = saved
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"lora_alpha": 5}))
    refuses(base, folder, str(folder / CONFIG), "does not belong to adapter_model.safetensors")
    (folder / CONFIG).write_text(
        json.dumps(config | {"base_model_name_or_path": "elsewhere", "task_type": "CAUSAL_LM"})
    )
    assert load_adapter(base, folder)


@pytest.mark.parametrize("folder", [None, 3, b"x", ["a"]])
def test_a_folder_that_is_no_path_is_refused(folder, tiny_lm):
    inject(tiny_lm, ["mlp"], r=1, alpha=1)
    for call in (load_adapter, save_adapter):
        with pytest.raises(TypeError, match="folder must be a path"):
            call(tiny_lm, folder)
        with pytest.raises(TypeError, match="model must be an nn.Module"):
            call(None, "folder")
    with pytest.raises(AdapterFileError, match="\x00|no such file"):
        load_adapter(tiny_lm, "a\x00b")


def test_what_cannot_be_saved_is_refused_and_the_old_file_stays(saved, make_layer):
    folder, model, base = saved
    files = {path: path.read_bytes() for path in folder.iterdir()}
    cases = [(base, "model has no adapters"), (make_layer(), "model is itself an adapter")]
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.blocks[1]["mlp"].lora_B[0, 0] = float("nan")
    cases += [(broken, "blocks.1.mlp.lora_B.weight is not finite"), (copy.deepcopy(model).to("meta"), "meta device")]
    mixed = nn.Sequential(LoRALinear(nn.Linear(2, 2), 1, 1), DoRALinear(nn.Linear(2, 2), 1, 1))
    cases += [
        (mixed, "several kinds"),
        (nn.Sequential(DoRALinear(nn.Linear(2, 2), 1, 1, magnitude="column")), "column"),
    ]
    for bad, words in cases:
        with pytest.raises(ValueError, match=words):
            save_adapter(bad, folder)
    with pytest.raises(TypeError, match="base_model_name"):
        save_adapter(model, folder, base_model_name=3)
    assert files == {path: path.read_bytes() for path in folder.iterdir()}


def test_the_import_does_not_load_safetensors():
    code = "import sys, lora_course.adapters.files; print('safetensors' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


# --- a save that is killed, or that fails: the old adapter or the new one

KILLED = r"""
import copy, os, sys, torch
from pathlib import Path
from torch import nn
from lora_course.adapters import inject
from lora_course.adapters import pair
from lora_course.adapters.files import load_adapter, save_adapter

def make(alpha, r, fill):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    base = copy.deepcopy(model)
    inject(model, ["0", "1"], r=r, alpha=alpha)
    for layer in model:
        nn.init.constant_(layer.lora_B, fill)
    return base, model

x = torch.ones(1, 4)
# the new adapter differs in rank, in alpha only, or in the numbers only
for case, new in enumerate([make(3, 3, 1.0), make(5, 2, 2.0), make(3, 2, 2.0)]):
    base, old = make(3, 2, 1.0)
    for nth in range(100):
        folder = Path(sys.argv[1]) / f"{case}-{nth}"
        save_adapter(old, folder)
        child = os.fork()
        if child == 0:
            count = [nth]
            def killing(f):
                def run(*arguments, **options):
                    if count[0] == 0:
                        if f is real_write:
                            arguments[0].write_bytes(arguments[1][: len(arguments[1]) // 2])
                        os.kill(os.getpid(), 9)
                    count[0] -= 1
                    return f(*arguments, **options)
                return run
            real_write = pair._write
            pair._write = killing(pair._write)
            for name in ("replace", "fsync", "unlink"):
                setattr(os, name, killing(getattr(os, name)))
            save_adapter(new[1], folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        loaded = copy.deepcopy(base)
        load_adapter(loaded, folder)
        found = "old" if torch.equal(loaded(x), old(x)) else "new" if torch.equal(loaded(x), new[1](x)) else "torn"
        save_adapter(new[1], folder)
        left = sorted(os.listdir(folder))
        load_adapter(again := copy.deepcopy(base), folder)
        print(case, nth, found, len(left), bool(torch.equal(again(x), new[1](x))), flush=True)
        if status == 0:
            break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the kill needs fork")
def test_a_save_killed_at_any_step_leaves_the_old_adapter_or_the_new_one(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {line[0] for line in lines} == {"0", "1", "2"} and len(lines) >= 3 * 7
    for case in "012":
        found = [line[2] for line in lines if line[0] == case]
        assert set(found) == {"old", "new"} and found == sorted(found, reverse=True)  # first old, from one step on new
    assert all(line[3:] == ["2", "True"] for line in lines)  # the next save works and clears up


@pytest.mark.parametrize("name", ["replace", "fsync"])
@pytest.mark.parametrize("nth", range(2))
def test_a_save_that_fails_leaves_the_old_adapter_or_the_new_one_and_says_so(name, nth, saved, tokens, monkeypatch):
    folder, model, base = saved
    new = copy.deepcopy(base)
    inject(new, ["mlp"], r=3, alpha=4)
    calls, real = [], getattr(os, name)

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == nth + 1:
            raise OSError("no space left on device")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing)
        with pytest.raises(OSError, match="no space"):
            save_adapter(new, folder)
    load_adapter(base, folder)
    committed = name == "replace" and nth == 1
    assert torch.equal(base(tokens), (new if committed else model)(tokens))
    assert committed or sorted(os.listdir(folder)) == [CONFIG, TENSORS]


def test_the_first_save_killed_before_its_configuration_is_in_place_is_whole_already(saved):
    folder, _, base = saved
    (folder / CONFIG).rename(folder / f".{CONFIG}.0123.new")
    (folder / f".{CONFIG}.0000.new").write_text("{")
    assert load_adapter(base, folder)
    assert re.fullmatch(
        "[0-9a-f]{64}", json.loads((folder / TENSORS).read_bytes()[8:].split(b"}")[0] + b"}}")["__metadata__"][SEAL]
    )
