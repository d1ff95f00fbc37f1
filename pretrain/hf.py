"""Names, shapes and configuration of a Llama in Hugging Face's format, and back. Pure: no tensors, no files.

The weights themselves need no change: query and key rows are stored half-split, as Hugging Face stores them
(`pretrain/model/attention.py`), so a tensor has the same bits on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from configs.build import build
from configs.edge import ConfigError
from configs.schema.train import ModelConfig, RopeScalingConfig

_OUTER = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK = {
    "attention.wq.weight": "self_attn.q_proj.weight",
    "attention.wk.weight": "self_attn.k_proj.weight",
    "attention.wv.weight": "self_attn.v_proj.weight",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}
FUNCTION_KEYS = (
    "dim",
    "n_layers",
    "n_heads",
    "n_kv_heads",
    "ffn_dim",
    "rope_theta",
    "rope_scaling",
    "norm_eps",
    "tied",
)
"""Keys of ModelConfig that change what a model computes with the same weights."""
TORCH_DTYPES = {"bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}


def hf_name(name: str) -> str:
    """Hugging Face's name of a parameter: `layers.3.attention.wq.weight` → `model.layers.3.self_attn.q_proj.weight`."""
    if name in _OUTER:
        return _OUTER[name]
    match = re.fullmatch(r"layers\.(\d+)\.(.+)", name)
    if match is None or match[2] not in _BLOCK:
        raise ValueError(f"`{name}` is not a parameter of a Llama")
    return f"model.layers.{match[1]}.{_BLOCK[match[2]]}"


def padded_vocab_size(model: ModelConfig, vocab_size: int) -> int:
    """Rows of embedding and head: the vocabulary size, rounded up to a multiple of `model.vocab_multiple`."""
    return -(-vocab_size // model.vocab_multiple) * model.vocab_multiple


def vocab_multiple(rows: int, vocab_size: int) -> int:
    """The smallest power of two, or `rows` itself, whose multiple a vocabulary is rounded up to with that many rows."""
    if rows == vocab_size:
        return 1
    powers = (2**k for k in range(1, rows.bit_length()))
    return next((m for m in powers if -(-vocab_size // m) * m == rows), rows)


def parameter_shapes(model: ModelConfig, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Shape of every stored parameter by our name, in the order of the forward pass; a tied head is not stored.

    Args:
        vocab_size: rows of the embedding, padding included.
    """
    d, head_dim = model.dim, model.dim // model.n_heads
    block: dict[str, tuple[int, ...]] = {
        "attention_norm.weight": (d,),
        "attention.wq.weight": (model.n_heads * head_dim, d),
        "attention.wk.weight": (model.n_kv_heads * head_dim, d),
        "attention.wv.weight": (model.n_kv_heads * head_dim, d),
        "attention.wo.weight": (d, model.n_heads * head_dim),
        "ffn_norm.weight": (d,),
        "feed_forward.w1.weight": (model.ffn_dim, d),
        "feed_forward.w3.weight": (model.ffn_dim, d),
        "feed_forward.w2.weight": (d, model.ffn_dim),
    }
    shapes: dict[str, tuple[int, ...]] = {"tok_embeddings.weight": (vocab_size, d)}
    for layer in range(model.n_layers):
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in block.items()}
    shapes["norm.weight"] = (d,)
    if not model.tied:
        shapes["output.weight"] = (vocab_size, d)
    return shapes


def to_hf_config(
    model: ModelConfig,
    vocab_size: int,
    bos: int | None,
    eos: list[int],
    dtype: str,
    trained_length: int | None = None,
) -> dict[str, Any]:
    """`config.json` of a model.

    RoPE stands in it twice, because transformers 5 reads `rope_parameters` and 4 reads `rope_theta` and
    `rope_scaling`.

    Args:
        bos: id of the token that the tokenizer calls BOS; the tokenizer's template says whether texts begin with it.
        eos: ids that end a text; the first is the one that training saw.
        dtype: stored precision, `bf16`, `fp32` or `fp64`.
        trained_length: tokens of the longest sequence that the model was trained on; None: `model.max_sequence_length`.
    """
    scaling: dict[str, Any] = {}
    if model.rope_scaling is not None:
        scaling = {
            "rope_type": "llama3",
            "factor": model.rope_scaling.factor,
            "low_freq_factor": model.rope_scaling.low_freq_factor,
            "high_freq_factor": model.rope_scaling.high_freq_factor,
            "original_max_position_embeddings": model.rope_scaling.original_max_position,
        }
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": model.dim,
        "intermediate_size": model.ffn_dim,
        "num_hidden_layers": model.n_layers,
        "num_attention_heads": model.n_heads,
        "num_key_value_heads": model.n_kv_heads,
        "head_dim": model.dim // model.n_heads,
        "hidden_act": "silu",
        "max_position_embeddings": trained_length or model.max_sequence_length,
        "initializer_range": model.init_std,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "rope_scaling": scaling or None,
        "rope_parameters": {"rope_type": "default"} | scaling | {"rope_theta": model.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": model.tied,
        "bos_token_id": bos,
        "eos_token_id": eos[0] if len(eos) == 1 else eos or None,
        "dtype": TORCH_DTYPES[dtype],
        "torch_dtype": TORCH_DTYPES[dtype],
        "use_cache": True,
    }


def from_hf_config(config: Mapping[str, Any], name: str, where: str) -> tuple[ModelConfig, int]:
    """The model and its vocabulary size from a `config.json`.

    Args:
        name: name of the model in our configuration.
        where: path of the file, for messages.

    Raises:
        ConfigError: the architecture, or a variation of it, is not one that `pretrain.model` computes.
    """
    kind = config.get("model_type")
    if kind != "llama":
        architectures = ", ".join(config.get("architectures") or ()) or "none named"
        raise ConfigError(
            f"{where}: model_type is {kind!r} (architectures: {architectures}), but only `llama` "
            "(LlamaForCausalLM) can be imported"
        )
    required = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    optional = [key for key in ("num_key_value_heads",) if config.get(key) is not None]
    for key in (*required, *optional):
        if type(config.get(key)) is not int or config[key] < 1:
            raise ConfigError(
                f"{where}: {key} must be an integer of at least 1, but it is {config.get(key)!r}"
            )
    dim, heads = config["hidden_size"], config["num_attention_heads"]
    if dim % heads:
        raise ConfigError(
            f"{where}: hidden_size must be a multiple of num_attention_heads, but {dim} / {heads} is not whole"
        )
    for key, value in config.items():
        if key in _KINDS and value is not None and not _is(value, _KINDS[key]):
            raise ConfigError(f"{where}: {key} must be {_KINDS[key]} or null, but it is {value!r}")
    expected = {
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "head_dim": dim // heads,
        "quantization_config": None,
        "partial_rotary_factor": 1,
        "is_causal": True,
        "use_bidirectional_attention": False,
    }
    for key, value in expected.items():
        found = config.get(key)
        if found is not None and found != value:
            raise ConfigError(f"{where}: {key} is {found!r}, but only {value!r} can be imported")
    theta, scaling = _rope(config, where)
    # What stands for null and for keys that are absent is what transformers' LlamaConfig takes.
    stated = {key: value for key, value in config.items() if value is not None}
    values = {
        "name": name,
        "dim": dim,
        "n_layers": config["num_hidden_layers"],
        "n_heads": heads,
        "n_kv_heads": stated.get("num_key_value_heads", heads),
        "ffn_dim": config["intermediate_size"],
        "max_sequence_length": stated.get("max_position_embeddings", 2048),
        "rope_theta": theta,
        "rope_scaling": None if scaling is None else vars(scaling),
        "norm_eps": float(stated.get("rms_norm_eps", 1e-6)),
        "tied": stated.get("tie_word_embeddings", False),
        "init_std": float(stated.get("initializer_range", 0.02)),
    }
    try:
        model = build(ModelConfig, values, "model")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return model, config["vocab_size"]


_KINDS = {
    "rms_norm_eps": "a number",
    "rope_theta": "a number",
    "initializer_range": "a number",
    "max_position_embeddings": "an integer",
    "tie_word_embeddings": "true or false",
    "rope_scaling": "a mapping",
    "rope_parameters": "a mapping",
    **dict.fromkeys(("factor", "low_freq_factor", "high_freq_factor"), "a number"),
    "original_max_position_embeddings": "an integer",
}
"""What keys of config.json must be that are read here, and null or absent where they are not stated."""


def _is(value: Any, kind: str) -> bool:
    types: dict[str, tuple[type, ...]] = {
        "a number": (int, float),
        "an integer": (int,),
        "a mapping": (dict,),
    }
    return type(value) in types.get(kind, (bool,))


def _rope(config: Mapping[str, Any], where: str) -> tuple[float, RopeScalingConfig | None]:
    """Base and scaling of the rotary embedding; where a file states them twice, both must say the same."""
    old, new, theta = config.get("rope_scaling"), config.get("rope_parameters"), config.get("rope_theta")
    if new and theta is not None and new.get("rope_theta") not in (None, theta):
        raise ConfigError(
            f"{where}: rope_theta is {theta} and rope_parameters.rope_theta {new['rope_theta']}; remove the wrong one"
        )
    stated = [_rope_of(parameters, theta, where) for parameters in (old, new) if parameters]
    if not stated:
        return _rope_of({}, theta, where)
    if stated[0] != stated[-1]:
        raise ConfigError(
            f"{where}: rope_scaling ({old}) and rope_parameters ({new}) contradict each other; remove the wrong one"
        )
    return stated[0]


def _rope_of(
    parameters: Mapping[str, Any], theta: float | None, where: str
) -> tuple[float, RopeScalingConfig | None]:
    for key, value in parameters.items():
        if key in _KINDS and value is not None and not _is(value, _KINDS[key]):
            raise ConfigError(
                f"{where}: {key} of the rope scaling must be {_KINDS[key]}, but it is {value!r}"
            )
    if parameters.get("partial_rotary_factor") not in (None, 1):
        raise ConfigError(
            f"{where}: partial_rotary_factor is {parameters['partial_rotary_factor']}, but only whole heads are rotated here"
        )
    base = float(next((t for t in (parameters.get("rope_theta"), theta) if t is not None), 10_000.0))
    kinds = {kind for key in ("rope_type", "type") if (kind := parameters.get(key)) is not None}
    if len(kinds) > 1:
        raise ConfigError(
            f"{where}: rope_type is {parameters['rope_type']!r} and type {parameters['type']!r}; remove the wrong one"
        )
    kind = next(iter(kinds), "default")
    if kind == "default":
        if parameters.get("factor") not in (None, 1):
            raise ConfigError(
                f"{where}: the rope scaling has factor {parameters['factor']}, but its type is {kind!r}, which scales "
                "nothing; name the type, or remove the factor"
            )
        return base, None
    if kind != "llama3":
        raise ConfigError(f"{where}: rope_type is {kind!r}, but only 'default' and 'llama3' can be imported")
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    if missing := [key for key in keys if parameters.get(key) is None]:
        raise ConfigError(f"{where}: rope scaling 'llama3' needs {', '.join(missing)}")
    factor, low, high, original = (parameters[key] for key in keys)
    if low >= high:
        raise ConfigError(
            f"{where}: low_freq_factor must be below high_freq_factor, but they are {low} and {high}"
        )
    return base, RopeScalingConfig(float(factor), float(low), float(high), int(original))
