r"""What PEFT (0.21.2) calls things in its files: the key of each factor, the fields of the configuration.

A key is "base_model.model." + the name of the layer + "." + the name of the factor; A (r, k) and B (d, r) as here.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

from lora_course.adapters.checks import check_alpha, check_choice, check_dropout, check_flag

PREFIX = "base_model.model."
_LORA = {"lora_A": "lora_A.weight", "lora_B": "lora_B.weight"}
# kind: (peft_type, {our attribute: name in the file}); an adapter is of the kind whose attributes are its parameters
KINDS = {
    "lora": ("LORA", _LORA),
    "dora": ("LORA", _LORA | {"lora_magnitude_vector": "lora_magnitude_vector"}),
    "adalora": ("ADALORA", {name: name for name in ("lora_A", "lora_B", "lora_E")}),
    "vera": ("VERA", {name: name for name in ("vera_lambda_b", "vera_lambda_d")}),
}
SHARED = ("base_model.vera_A", "base_model.vera_B")  # VeRA's pair, once a file
ALIASES = {"lora_magnitude_vector.weight": "lora_magnitude_vector"}
# starts after which lora_A and lora_B belong to another base weight than the original one
MOVES_BASE = ("pissa", "milora", "olora", "corda", "loftq", "lora_ga")
# fields with no say in what the saved tensors compute
NEUTRAL = frozenset(
    "alpha_pattern auto_mapping base_model_name_or_path beta1 beta2 corda_config d_initial deltaT ensure_weight_tying "
    "eva_config exclude_modules inference_mode init_lora_weights init_r init_weights layers_pattern "
    "layers_to_transform loftq_config lora_alpha lora_dropout lora_ga_config megatron_core orth_reg_weight "
    "peft_type peft_version projection_prng_key qalora_group_size r rank_pattern revision runtime_config "
    "save_projection target_modules target_r task_type tfinal tinit total_step use_dora use_rslora vera_dropout".split()
)


# peft_type: field of r, its default, field of dropout
_FIELDS = {
    "LORA": ("r", 8, "lora_dropout"),
    "ADALORA": ("init_r", 12, "lora_dropout"),
    "VERA": ("r", 256, "vera_dropout"),
}


class ConfigError(ValueError):
    r"""A field of a configuration that cannot be used; the message begins with its name."""


def kind_of(adapter):
    r"""Return the kind in KINDS of an adapter; ValueError if PEFT has no files for it."""
    names = {name for name, p in adapter._parameters.items() if p is not None}
    kind = next((kind for kind, (_, keys) in KINDS.items() if keys.keys() == names), None)
    if kind is None or getattr(adapter, "magnitude", "row") != "row":
        what = f"{type(adapter).__name__} with {', '.join(sorted(names))}"
        raise ValueError(f"PEFT has no file format for a {what}" + (", by column" if kind else ""))
    return kind


def split_key(key):
    r"""Return (name of the layer, name of the factor) of a key of a file, or None if it has no such form."""
    names = {name for _, keys in KINDS.values() for name in keys.values()} | ALIASES.keys()
    for name in sorted(names, key=len, reverse=True):
        if key.startswith(PREFIX) and key.endswith("." + name) and len(key) > len(PREFIX) + len(name) + 1:
            return key[len(PREFIX) : -len(name) - 1], ALIASES.get(name, name)
    return None


def make_config(kind, ranks, alphas, rslora, dropout, target_modules, base_model_name):
    r"""Return adapter_config.json as a dict: for LoRA the commonest r and alpha, and patterns for layers that differ.

    Raises ValueError if r or alpha differ in a kind for which PEFT knows one of each only.
    """
    r, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    config = {
        "peft_type": KINDS[kind][0],
        "task_type": None,
        "base_model_name_or_path": base_model_name,
        "inference_mode": True,
        "target_modules": target_modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
    }
    ranks = {"^" + re.escape(name): value for name, value in ranks.items() if value != r}
    alphas = {"^" + re.escape(name): value for name, value in alphas.items() if value != alpha}
    if kind in ("lora", "dora"):
        patterns = {"rank_pattern": ranks, "alpha_pattern": alphas}
        own = {"r": r, "lora_alpha": alpha, "use_rslora": rslora, "use_dora": kind == "dora", **patterns}
        return config | own | {"lora_dropout": dropout, "init_lora_weights": True}
    if ranks or (alphas and kind == "adalora"):
        raise ValueError(f"the layers differ in r or alpha; PEFT's files know one of each for {config['peft_type']}")
    if kind == "adalora":  # the schedule is not part of the adapter, but PEFT wants one that is possible
        schedule = {"target_r": r, "tinit": 0, "tfinal": 0, "total_step": 1}
        return config | {"init_r": r, "lora_alpha": alpha, "lora_dropout": dropout} | schedule
    return config | {"r": r, "vera_dropout": dropout, "projection_prng_key": 0, "save_projection": True}


@dataclass(frozen=True)
class Plan:
    r"""What a configuration says; ``of(name)`` gives r and alpha of a layer.

    partial: not all that target_modules names is adapted. masks (AdaLoRA): {layer: which triplets are in the file}.
    prng_key (VeRA): the seed of A and B if they are not in the file, else None.
    """

    kind: str
    target_modules: str | list
    r: int
    alpha: float
    dropout: float
    rslora: bool
    partial: bool
    patterns: dict = field(default_factory=dict, repr=False)
    masks: dict = field(default_factory=dict, repr=False)
    prng_key: int | None = None

    def of(self, name):
        r"""Return (r, alpha) of the layer ``name``."""
        found = []
        for key, usual in (("rank_pattern", self.r), ("alpha_pattern", self.alpha)):
            hits = (
                value for (anchored, end), value in self.patterns.get(key, {}).items() if _fits(name, anchored, end)
            )
            found.append(next(hits, usual))
        return tuple(found)


def read_plan(config):
    r"""Return the Plan of a configuration (a dict), all of its fields checked; ConfigError names the bad one.

    No regular expression of a file is ever run, since it could take forever: rank_pattern and alpha_pattern
    may hold names only (also escaped, or with ^ before), and for an expression in target_modules it is the keys of
    the tensors that tell the layers. A field that is not known must be empty.
    """
    peft_type = config.get("peft_type")
    if not isinstance(peft_type, str) or peft_type not in _FIELDS:
        raise ConfigError(f"peft_type is {peft_type!r:.80}; known here are {', '.join(_FIELDS)}")
    rank_field, usual_r, dropout_field = _FIELDS[peft_type]
    target = _checked(config, "target_modules", None, _check_target)
    r = _checked(config, rank_field, usual_r, lambda _, value: _bounded(value))
    alpha = r if peft_type == "VERA" else _checked(config, "lora_alpha", 8, lambda _, value: check_alpha(value))
    dropout = _checked(config, dropout_field, 0.0, lambda _, value: check_dropout(value))
    rslora = _checked(config, "use_rslora", False, check_flag)
    dora = _checked(config, "use_dora", False, check_flag)
    _checked(config, "bias", "none", lambda name, value: check_choice(name, value, ("none",)))
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(MOVES_BASE):
        raise ConfigError(
            f"init_lora_weights is {start!r:.80}, a start that changes the base weights, which are not in the file; "
            "save it as a plain adapter (PEFT: path_initial_model_for_weight_conversion)"
        )
    for name in sorted(config.keys() - NEUTRAL - {"bias"}):
        if config[name] not in (None, False, [], {}, ""):
            raise ConfigError(f"{name!r:.80} is {config[name]!r:.80}, which is not supported here")
    partial = bool(config.get("exclude_modules") or config.get("layers_to_transform") is not None)
    if peft_type == "VERA":
        saved = _checked(config, "save_projection", True, check_flag)
        key = _checked(config, "projection_prng_key", 0, lambda _, value: _bounded(value, 0, 2**63))
        return Plan("vera", target, r, r, dropout, False, partial, prng_key=None if saved else key)
    if peft_type == "ADALORA":
        masks = _checked(config, "rank_pattern", None, lambda _, value: _masks(value, r))
        return Plan("adalora", target, r, alpha, dropout, False, partial, masks=masks)
    patterns = {
        "rank_pattern": _checked(config, "rank_pattern", None, lambda _, value: _pattern(value, _bounded)),
        "alpha_pattern": _checked(config, "alpha_pattern", None, lambda _, value: _pattern(value, check_alpha)),
    }
    return Plan("dora" if dora else "lora", target, r, alpha, dropout, rslora, partial, patterns)


def _checked(config, name, default, check):
    try:
        return check(name, config.get(name, default))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {error}") from None


def _bounded(value, low=1, high=2**31):
    if type(value) is not int or not low <= value < high:
        raise ValueError(f"it must be an integer in [{low}, {high}), got {value!r:.80}")
    return value


def _check_target(name, value):
    if not isinstance(value, (str, list)) or not value or not all(isinstance(v, str) and v for v in value):
        raise ConfigError(f"it must be a list of names or a regular expression, got {value!r:.80}")
    return value


def _object(value):
    if not isinstance(value, (dict, type(None))):
        raise TypeError(f"it must be a JSON object, got {value!r:.80}")
    return value or {}


def _pattern(value, check):
    """Return {(anchored, end of the name): number}."""
    read = {}
    for key, number in _object(value).items():
        plain = re.sub(r"\\([^0-9A-Za-z])", r"\1", key.removeprefix("^"))
        if not re.fullmatch(r"[\w.\- ]+", plain):
            raise ValueError(f"{key!r:.80} is more than a name, and regular expressions of a file are not run")
        read[key.startswith("^"), plain] = check(number)
    return read


def _masks(value, r):
    """Return {name of the layer: list of r bools} of AdaLoRA's {name + ".lora_E": list of bools}."""
    for key, mask in _object(value).items():
        if not isinstance(mask, list) or len(mask) != r or not all(isinstance(one, bool) for one in mask):
            raise ValueError(f"{key!r:.80} must have {r} times true or false")
    return {key.removesuffix(".lora_E"): mask for key, mask in _object(value).items()}


def _fits(name, anchored, end):
    return name == end or (not anchored and name.endswith("." + end))
