r"""A language model as chapter 13 uses it: the same face on the course's own, a random Qwen3, and a downloaded one.

tokens: (n, t) int64;  logits: (n, t, vocabulary). Text is a str in which a zero character ends each document.
Transformers is no dependency of the package: it is imported where a function needs it.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from lora_course.labs import tinylm
from lora_course.labs._checks import at_least, generator, positive
from lora_course.labs.tinylm.measure import windows
from lora_course.theory import DecoderShapes

__all__ = ["SMALL", "LanguageModel", "bits_per_byte", "choose", "downloaded", "qwen3", "sample", "windows"]

# Qwen3-0.6B's proportions: q (2h, h), k and v (h, h), o (h, 2h), an MLP of 3h, two query heads a key head; bytes
SMALL = DecoderShapes(hidden=64, layers=4, heads=8, kv_heads=4, head_dim=16, intermediate=192, vocabulary=256)


@dataclass(frozen=True)
class LanguageModel:
    r"""A causal language model with its way to read and write text.

    `module` maps tokens to logits, or to an output with `.logits`; `encode` maps a str to a list of tokens, `decode`
    back; `start` is the token before the first of a document; at most `context` tokens are given at once.
    """

    name: str
    module: nn.Module
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    start: int
    context: int

    @property
    def device(self):
        r"""Where the parameters lie."""
        return next(self.module.parameters()).device

    def logits(self, tokens):
        r"""Logits (n, t, vocabulary) for tokens (n, t), on whatever device they are given."""
        out = self.module(tokens.to(self.device))
        return getattr(out, "logits", out)

    def tokens(self, text):
        r"""The tokens of a str as a tensor (t,), int64."""
        return torch.tensor(self.encode(text), dtype=torch.int64)

    def copy(self, share=False):
        r"""A second one; with `share` its module is built anew around the very same parameters, no byte of them copied.

        Adapters of the copy are its own; with `share`, what changes a base weight in place (a merge, full training)
        changes it for both.
        """
        kept = {id(p): p for p in self.module.parameters()} if share else {}
        return replace(self, module=copy.deepcopy(self.module, kept))


def choose(name: str | None) -> tuple[LanguageModel, LanguageModel]:
    r"""Two models: one whose code is Transformers', and one that can write.

    For None (offline) these are a random small Qwen3 and the course's own model; for the name of a model on the
    Hugging Face hub, or a folder, twice the same downloaded one (see `downloaded`).
    """
    if name is not None:
        return (model := downloaded(name)), model
    return _on_bytes("a random Qwen3, scaled down", qwen3(SMALL), 256), _on_bytes("tiny LM", tinylm.load().eval(), 128)


def qwen3(shapes: DecoderShapes, seed: int = 0, device: str = "cpu") -> nn.Module:
    r"""Transformers' own Qwen3ForCausalLM of these shapes with random weights, in eval mode.

    `device="meta"` builds it without memory. The global generator of torch is left as it was. Raises `ImportError`
    with what to install if Transformers is missing, or older than Qwen3.
    """
    transformers = _transformers("Qwen3Config")
    config = transformers.Qwen3Config(
        vocab_size=shapes.vocabulary,
        hidden_size=shapes.hidden,
        intermediate_size=shapes.intermediate,
        num_hidden_layers=shapes.layers,
        num_attention_heads=shapes.heads,
        num_key_value_heads=shapes.kv_heads,
        head_dim=shapes.head_dim,
        tie_word_embeddings=shapes.tied_embeddings,
    )
    at_least("seed", seed, 0)
    with torch.random.fork_rng(devices=[]), torch.device(device):  # Transformers draws from the global generator
        torch.manual_seed(seed)
        return transformers.Qwen3ForCausalLM(config).eval()


def downloaded(name: str, device: str | None = None, context: int = 128) -> LanguageModel:
    r"""A pretrained model and its tokenizer from the Hugging Face hub (or a folder), in float32, in eval mode.

    `device=None` takes a GPU if there is one. Needs a network unless the model lies in the hub's cache or a folder.
    """
    transformers = _transformers("AutoModelForCausalLM")
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    module = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
    module.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    end = tokenizer.eos_token or tokenizer.pad_token

    def encode(text):
        return tokenizer(text.replace("\0", end), add_special_tokens=False)["input_ids"]

    def decode(tokens):
        return tokenizer.decode(tokens).replace(end, "\0")

    return LanguageModel(name, module, encode, decode, tokenizer.convert_tokens_to_ids(end), context)


@torch.no_grad()
def bits_per_byte(model: LanguageModel, text: str, batch: int = 32) -> float:
    r"""Mean of -log2 p over the bytes of `text` in UTF-8, whatever the tokens are, so that tokenizers compare.

    The text is cut into windows of `context` tokens side by side, each predicted from those before it in its window.
    Raises `ValueError` if `text` is empty.
    """
    if not text:
        raise ValueError("text is empty; at least one character is needed")
    tokens, nats = torch.cat([torch.tensor([model.start]), model.tokens(text)]), 0.0
    whole = (len(tokens) - 1) // model.context * model.context
    rows = tokens.unfold(0, model.context + 1, model.context) if whole else tokens[:0].view(0, 1)
    for piece in [*rows.split(batch), tokens[None, whole:]]:
        if piece.numel() and piece.shape[1] > 1:
            logits = model.logits(piece[:, :-1]).flatten(0, 1).float()
            nats += F.cross_entropy(logits, piece[:, 1:].flatten().to(logits.device), reduction="sum").item()
    return nats / math.log(2) / len(text.encode())


@torch.no_grad()
def sample(model: LanguageModel, prompt: str = "", length: int = 60, temperature: float = 0.7, seed: int = 0) -> str:
    r"""`prompt` and `length` tokens more, drawn at `temperature`; an empty prompt begins a document.

    Raises `TypeError` or `ValueError` unless `length` is a positive int, `temperature` a positive number and `seed` an
    int, not negative.
    """
    length, temperature, source = at_least("length", length, 1), positive("temperature", temperature), generator(seed)
    tokens = torch.cat([torch.tensor([model.start]), model.tokens(prompt)])
    for _ in range(length):
        chances = (model.logits(tokens[None, -model.context :])[0, -1].float().cpu() / temperature).softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(chances, 1, generator=source)])
    return model.decode(tokens[1:].tolist())


def _on_bytes(name, module, context):
    return LanguageModel(
        name,
        module,
        lambda text: list(text.encode()),
        lambda tokens: bytes(tokens).decode("utf-8", "replace"),
        0,
        context,
    )


def _transformers(needed):
    install = "run: pip install 'transformers>=4.56' 'peft>=0.17'  (they are no part of lora_course)"
    try:
        import transformers
    except ImportError as error:
        raise ImportError(f"this needs the package transformers, which is not installed; {install}") from error
    if not hasattr(transformers, needed):
        raise ImportError(f"transformers {transformers.__version__} has no {needed}; {install}")
    return transformers
