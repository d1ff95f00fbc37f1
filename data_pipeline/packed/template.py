"""What a tokenizer itself puts around a text: the ids that the post-processor of its tokenizer.json adds.

Packing, evaluation, generation and export all ask here, so that they agree with each other and with transformers, which
ignores `add_bos_token` of tokenizer_config.json where there is a tokenizer.json.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_PROBE = "a"


class Template(NamedTuple):
    """Ids that a tokenizer adds to a text."""

    begin: tuple[int, ...]
    """Before it: `<|begin_of_text|>` of Llama 3, nothing of GPT-2 and SmolLM2."""
    end: tuple[int, ...]
    """After it: `</s>` of T5, nothing of most models that generate text."""


def read_template(tokenizer: Any) -> Template:
    """The template of a `tokenizers.Tokenizer`; ValueError where it changes the tokens of the text itself."""
    bare = tokenizer.encode(_PROBE, add_special_tokens=False).ids
    whole = tokenizer.encode(_PROBE, add_special_tokens=True).ids
    for begin in range(len(whole) - len(bare) + 1):
        if whole[begin : begin + len(bare)] == bare:
            return Template(tuple(whole[:begin]), tuple(whole[begin + len(bare) :]))
    raise ValueError(
        f"the tokenizer's post-processor changes the tokens of a text ({bare} becomes {whole}); expected one that adds "
        "tokens before or after it"
    )


def token_name(value: Any) -> str:
    """A token in tokenizer_config.json: a string, or an object with `content`; empty where there is none."""
    return value.get("content", "") if isinstance(value, dict) else value or ""
