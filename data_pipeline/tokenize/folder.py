"""A tokenizer folder: `tokenizer.json` and `tokenizer_config.json`, as Hugging Face's AutoTokenizer loads them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from tokenizers import AddedToken, Tokenizer, processors

from configs.schema.pipeline import TokenizerConfig
from data_pipeline.packed import Template, TokenizerInfo, read_template, token_name
from data_pipeline.packed.files import atomic_file, write_atomically

BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
START_HEADER, END_HEADER, END_OF_TURN = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
NAMED = {"start_header": START_HEADER, "end_header": END_HEADER, "eot": END_OF_TURN}
# Names of begin and end in tokenizers that do not say which they are.
GUESSES = {"bos": (BEGIN, "<s>", "<|startoftext|>"), "eos": (END, "</s>", "<|endoftext|>")}
SETTINGS = "tokenizer_config.json"
DOCUMENT_EOS = "document_eos_token"
"""Key of tokenizer_config.json: false where documents are packed without EOS (`tokenizer.eos=false`)."""


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer ready to encode documents."""

    tokenizer: Tokenizer
    """Encodes special-token strings in text as ordinary text."""
    info: TokenizerInfo
    """Its hash, vocabulary size and special ids, and the ids around a document."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts, without those that the tokenizer puts around them."""
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def load_tokenizer(folder: Path, eos: bool | None = None) -> LoadedTokenizer:
    """Load a tokenizer folder.

    Documents begin with what the tokenizer's own template puts before a text. They end with what it puts after one; where
    that is nothing, with the EOS token, because a model learns the end of a text from nothing else.

    Args:
        eos: false: documents end with nothing; null: what the folder says.

    Raises:
        ValueError: the folder is absent or damaged, its tokenizer has no EOS token to end documents with, or makes special
            tokens out of text.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"{folder} is not a tokenizer folder: it holds no tokenizer.json")
    content = path.read_bytes()
    try:
        tokenizer = Tokenizer.from_buffer(content)
    # The library raises bare Exception.
    except Exception as error:
        raise ValueError(f"{path} is not a tokenizer of Hugging Face `tokenizers`: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    config = _read_config(folder / SETTINGS)
    try:
        begin, end = read_template(tokenizer)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    special = {name: _special(folder, name, config, vocabulary) for name in ("bos", "eos")}
    if special["bos"] is None and begin:
        special["bos"] = begin[0]
    if eos is False or (eos is None and config.get(DOCUMENT_EOS) is False):
        end = ()
    elif not end:
        if special["eos"] is None:
            raise ValueError(
                f"{folder} has no EOS token: none of {', '.join(GUESSES['eos'])} is in its vocabulary; name it as "
                f"`eos_token` in {SETTINGS}, because every document ends with it, or import it with tokenizer.eos=false"
            )
        end = (special["eos"],)
    ids = {name: index for name, index in special.items() if index is not None}
    pad = token_name(config.get("pad_token"))
    ids["pad"] = vocabulary[pad] if pad in vocabulary else ids.get("eos", 0)
    ids.update({name: vocabulary[token] for name, token in NAMED.items() if token in vocabulary})
    roles = {index for name, index in ids.items() if name != "pad"}
    _keep_out_of_text(tokenizer, {*begin, *end, *roles}, path)
    digest = hashlib.sha256(content).hexdigest()
    info = TokenizerInfo(digest, max(vocabulary.values()) + 1, ids, begin, end)
    return LoadedTokenizer(tokenizer, info)


def _keep_out_of_text(tokenizer: Tokenizer, boundaries: set[int], path: Path) -> None:
    """Have the text of a boundary token encoded as text, also where the file does not call the token special.

    Raises:
        ValueError: the tokenizer makes the token out of text all the same, so boundaries could not be told from text.
    """
    tokens = [tokenizer.id_to_token(i) for i in sorted(boundaries)]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in tokens])
    for token in tokens:
        if boundaries & set(tokenizer.encode(f"a {token} b{token}", add_special_tokens=False).ids):
            raise ValueError(
                f"{path}: the text {token!r} in a document would become the token that separates documents; give the "
                "tokenizer a begin and an end token of its own"
            )


def save_tokenizer(tokenizer: Tokenizer, settings: dict[str, Any], output: Path) -> None:
    """Write a tokenizer folder; settings: what tokenizer_config.json says beside what every folder's does."""
    output.mkdir(parents=True, exist_ok=True)
    defaults = {
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 1_000_000_000,
    }
    # A slow class of transformers would look for a file that is not there.
    whole = defaults | settings | {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_atomically(
        output / SETTINGS, orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    )
    with atomic_file(output / "tokenizer.json") as temporary:
        tokenizer.save(str(temporary), pretty=True)


def set_template(folder: Path, config: TokenizerConfig) -> TokenizerInfo:
    """Have `tokenizer.bos` and `tokenizer.eos` hold for a tokenizer folder; null leaves its own template.

    BOS is written to the post-processor of tokenizer.json, which is what every reader of the folder follows, so its hash
    changes where the template does; EOS, which is of documents and not of prompts, to tokenizer_config.json.

    Raises:
        ValueError: BOS is asked for, but the tokenizer names none.
    """
    if config.bos is None and config.eos is None:
        return load_tokenizer(folder).info
    settings = _read_config(folder / SETTINGS)
    if config.eos is not None:
        settings[DOCUMENT_EOS] = config.eos
        write_atomically(folder / SETTINGS, orjson.dumps(settings, option=orjson.OPT_INDENT_2))
    if config.bos is not None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        bos = _special(folder, "bos", settings, tokenizer.get_vocab(with_added_tokens=True))
        if config.bos and bos is None:
            raise ValueError(
                f"tokenizer.bos is true, but {folder} has no BOS token; name it as `bos_token` in {SETTINGS}"
            )
        own = read_template(tokenizer)
        wanted = own._replace(begin=(bos,) if config.bos and bos is not None else ())
        if wanted != own:
            _write_template(tokenizer, wanted, folder / "tokenizer.json")
    return load_tokenizer(folder).info


def _write_template(tokenizer: Tokenizer, template: Template, path: Path) -> None:
    begin, end = ([tokenizer.id_to_token(index) for index in ids] for ids in template)
    tokens = dict(zip(begin + end, template.begin + template.end, strict=True))
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=[*begin, "$A", *end],
        pair=[
            *begin,
            "$A",
            *end,
            *(f"{token}:1" for token in begin),
            "$B:1",
            *(f"{token}:1" for token in end),
        ],
        special_tokens=list(tokens.items()),
    )
    with atomic_file(path) as temporary:
        tokenizer.save(str(temporary), pretty=True)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold a JSON object, but it holds {type(config).__name__}")
    return config


def _special(folder: Path, name: str, config: dict[str, Any], vocabulary: dict[str, int]) -> int | None:
    given = token_name(config.get(f"{name}_token"))
    if given and given not in vocabulary:
        raise ValueError(
            f"{folder} has no {name.upper()} token: {given!r}, which {SETTINGS} names as `{name}_token`, is not in its "
            "vocabulary; name one that is"
        )
    return next(
        (vocabulary[token] for token in ([given] if given else GUESSES[name]) if token in vocabulary), None
    )
