"""The shape of a Llama of a given size: one rule from a million parameters to hundreds of billions.

Sizes count all parameters, with the vocabulary that the model will have, as the published names do (Llama 3 8B has
8.03e9). Pure: no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from configs.edge import ConfigError
from configs.schema.train import ModelConfig

UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
FFN_RATIO = 3.5
"""Feed-forward width over model width, of Llama 3 8B and 70B (Llama 3 report, table 3)."""
TOLERANCE = 0.05
BYTES = {"auto": (2, 4), "bf16": (2, 4), "bf16_pure": (2, 2), "fp32": (4, 4), "fp64": (8, 8)}
"""Bytes of a number in compute precision, and of a master weight, a moment or a reduced gradient. `auto` is bf16, as on
every GPU of the table; for processors `fill.on_paper` decides it first."""


def parse_size(text: str) -> float:
    """Parameters that a size such as `160m`, `1.3b` or `250e6` names.

    Raises:
        ConfigError: it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e\+?\d+)?)([kmbt]?)", str(text).strip().lower())
    if match is None or float(match[1]) == 0:
        raise ConfigError(
            f"`model.size` is {text!r}, which is no number of parameters; write 160m, 1.3b or 250e6"
        )
    return float(match[1]) * UNITS[match[2]]


def format_size(parameters: float) -> str:
    """A number of parameters as a name: 1.34e8 → `134m`."""
    for unit, scale in (("t", 1e12), ("b", 1e9), ("m", 1e6)):
        if parameters >= 0.9995 * scale:
            return f"{float(f'{parameters / scale:.3g}'):g}{unit}"
    return f"{float(f'{parameters / 1e3:.3g}'):g}k"


def body_parameters(model: ModelConfig) -> int:
    """Parameters outside embedding and head."""
    head_dim = model.dim // model.n_heads
    attention = 2 * model.dim * head_dim * (model.n_heads + model.n_kv_heads)
    return model.n_layers * (attention + 3 * model.dim * model.ffn_dim + 2 * model.dim) + model.dim


def parameters(model: ModelConfig, vocab_size: int) -> int:
    """All parameters; a tied head counts once."""
    return body_parameters(model) + vocab_size * model.dim * (1 if model.tied else 2)


def flops_per_token(model: ModelConfig, vocab_size: int, sequence_length: int) -> float:
    """FLOPs of training on one token of a document as long as the sequence (Kaplan et al. 2020, table 1; the count of
    `pretrain.metrics.flops`): 6 a parameter of a matrix product, and 12 × layers × width a pair in attention.
    """
    norms = (2 * model.n_layers + 1) * model.dim
    matrices = body_parameters(model) - norms + vocab_size * model.dim
    return 6.0 * matrices + 12.0 * model.n_layers * model.dim * (sequence_length + 1) / 2


def head_width(dim: int) -> int:
    """64 up to 2,048 wide (Llama 3.2 1B), 128 above (Llama 3.2 3B and all of Llama 3)."""
    return 64 if dim <= 2048 else 128


def kv_heads(heads: int) -> int:
    """Key and value heads: 8 as in all of Llama 3, or the largest smaller power of two that divides the query heads and
    is at most half of them."""
    return next(k for k in (8, 4, 2, 1) if heads % k == 0 and (2 * k <= heads or k == 1))


def target_layers(dim: int) -> float:
    """Depth that goes with a width. Width over depth grows from 64 (512 wide) to 128 (4,096 wide), between the published
    101 (70B), 110 (3B) and 130 (405B); loss is flat around it (Kaplan et al. 2020, figure 5)."""
    return dim / min(128.0, max(64.0, 64.0 * (dim / 512) ** (1 / 3)))


def is_tied(size: float, vocab_size: int, dim: int) -> bool:
    """Share the embedding with the head where two of them would be more than a fifth of the model: what Llama 3.2
    (1B, 3B) does and Llama 3 (8B and more) does not."""
    return 2 * vocab_size * dim > 0.2 * size


def shape(
    size: float, vocab_size: int, sequence_length: int = 8192, tolerance: float = TOLERANCE
) -> ModelConfig:
    """The model whose parameters are nearest to `size` and whose proportions are nearest to the published ones.

    Args:
        size: parameters, embedding and head included.
        vocab_size: rows of the embedding.
        sequence_length: tokens; the model's maximum is this, but at least 8,192.
        tolerance: share of the size by which a model may differ from it.

    Raises:
        ConfigError: no model comes that near, which happens where the embedding is most of it; names the nearest sizes.
    """
    found = [c for dim in WIDTHS for c in _candidates(size, vocab_size, dim)]
    best = min(found, key=lambda candidate: candidate.cost)
    if abs(best.parameters / size - 1) > TOLERANCE:
        best = min(found, key=lambda candidate: abs(math.log(candidate.parameters / size)))
    if abs(best.parameters / size - 1) > tolerance:
        below = [c.parameters for c in found if c.parameters < size]
        above = [c.parameters for c in found if c.parameters > size]
        near = " or ".join(
            format_size(n) for n in ([max(below)] if below else []) + ([min(above)] if above else [])
        )
        raise ConfigError(
            f"`model.size` is {format_size(size)}, which no shape meets within {tolerance:.0%}: widths come in steps of "
            f"64, and an embedding of {vocab_size:,} words grows by {format_size(64 * vocab_size)} with each; the nearest "
            f"sizes are {near}, or pack with a smaller vocabulary (tokenizer=small has 4,096 words)"
        )
    heads = best.dim // head_width(best.dim)
    return ModelConfig(
        name=format_size(size),
        dim=best.dim,
        n_layers=best.n_layers,
        n_heads=heads,
        n_kv_heads=kv_heads(heads),
        ffn_dim=best.ffn_dim,
        max_sequence_length=max(8192, sequence_length),
        tied=best.tied,
    )


class Candidate(NamedTuple):
    """A shape with its distance from what was asked and from the published proportions."""

    cost: float
    parameters: int
    dim: int
    n_layers: int
    ffn_dim: int
    tied: bool


def _candidates(size: float, vocab_size: int, dim: int) -> Iterator[Candidate]:
    """Shapes of one width; the feed-forward takes up what depth leaves."""
    unit = 64 if dim < 1024 else 256
    heads = dim // head_width(dim)
    tied = is_tied(size, vocab_size, dim)
    outer = vocab_size * dim * (1 if tied else 2) + dim
    attention = 2 * dim * head_width(dim) * (heads + kv_heads(heads)) + 2 * dim
    target = target_layers(dim)
    low, high = -(-5 * dim // (2 * unit)) * unit, 4 * dim
    smallest = outer + math.floor(target / 2) * (attention + 3 * dim * low)
    if dim > WIDTHS[0] and smallest > 2 * size:
        return
    for n_layers in range(max(1, math.floor(target / 2)), math.ceil(target * 2) + 1):
        left = (size - outer) / n_layers - attention
        ffn = min(max(round(left / (3 * dim) / unit) * unit, low), high)
        total = outer + n_layers * (attention + 3 * dim * ffn)
        cost = (
            20 * abs(math.log(total / size))
            + abs(math.log(n_layers / target))
            + 2 * abs(math.log(ffn / (FFN_RATIO * dim)))
            # Heads in fours (in eights where they are many) share keys evenly and split over tensor-parallel ranks.
            + (1.0 if heads % (4 if heads < 32 else 8) else 0.0)
        )
        yield Candidate(cost, total, dim, n_layers, ffn, tied)
        if total > 4 * size:
            return


# Whole heads.
WIDTHS = (
    *range(64, 1024, 64),
    *range(1024, 2048, 128),
    2048,
    *range(2560, 4096, 512),
    *range(4096, 16384, 1024),
    *range(16384, 40961, 2048),
)
