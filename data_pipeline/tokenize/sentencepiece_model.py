"""A SentencePiece model (BPE or Unigram) → tokenizer.json.

The file is a protocol buffer (sentencepiece_model.proto); the few fields that decide how text is encoded are read here, so
that importing needs no package.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
UNIGRAM, BPE = 1, 2
KINDS = {UNIGRAM: "Unigram", BPE: "BPE", 3: "word", 4: "character"}
SPACE = "▁"


@dataclass(frozen=True)
class Model:
    """What a SentencePiece model holds."""

    pieces: list[tuple[str, float, int]]
    """(piece, score, type) by id."""
    kind: int
    """BPE or UNIGRAM."""
    ids: dict[str, int] = field(default_factory=dict)
    """unk, bos, eos, pad; −1: none."""
    byte_fallback: bool = False
    charsmap: bytes = b""
    """Compiled normalization; empty: none."""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True

    def token(self, role: str) -> str | None:
        """The piece of a role, None where the model has none."""
        index = self.ids[role]
        return self.pieces[index][0] if 0 <= index < len(self.pieces) else None


def read_model(path: Path) -> Model:
    """Read a model; ValueError where the file is none, is cut off, or is of a kind that cannot be imported."""
    data = path.read_bytes()
    try:
        model = _parse(data)
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path} is no whole SentencePiece model: {error}") from None
    if not model.pieces:
        raise ValueError(f"{path} is no SentencePiece model: it holds no pieces")
    if model.kind not in (BPE, UNIGRAM):
        raise ValueError(
            f"{path} is a SentencePiece model of the kind {KINDS.get(model.kind, model.kind)}; only BPE and Unigram can be "
            "imported"
        )
    return model


def convert(path: Path) -> tuple[Tokenizer, dict[str, str]]:
    """The tokenizer of a SentencePiece model, and its settings (bos_token, …).

    Texts begin with the BOS piece where the model has one, as LLaMA's do; SentencePiece itself leaves that to its caller.
    """
    model = read_model(path)
    tokenizer = Tokenizer(_bpe(model) if model.kind == BPE else _unigram(model))
    steps: list[Any] = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if model.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    steps.append(normalizers.Replace(" ", SPACE))
    tokenizer.normalizer = normalizers.Sequence(steps)  # type: ignore[assignment]
    if model.kind == UNIGRAM:
        tokenizer.pre_tokenizer = _split_names(model)  # type: ignore[assignment]
    pieces: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.add_dummy_prefix:
        pieces.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(pieces)  # type: ignore[assignment]
    for kind, special in (((UNKNOWN, CONTROL), True), ((USER_DEFINED,), False)):
        added = [AddedToken(p, normalized=False, special=special) for p, _, k in model.pieces if k in kind]
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)
    roles = {role: model.token(role) for role in ("bos", "eos", "unk", "pad")}
    if (bos := roles["bos"]) is not None:
        tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, model.ids["bos"])]
        )
    return tokenizer, {f"{role}_token": token for role, token in roles.items() if token is not None}


def _bpe(model: Model) -> models.BPE:
    """Merges of all pairs of pieces that make a piece, the result with the highest score first."""
    scores = {piece: score for piece, score, kind in model.pieces if kind in (NORMAL, USER_DEFINED)}
    vocabulary = {piece: index for index, (piece, _, _) in enumerate(model.pieces)}
    ranked = []
    for piece, score in scores.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in scores and right in scores:
                ranked.append((-score, vocabulary[left], vocabulary[right], left, right))
    return models.BPE(
        vocabulary,
        [(left, right) for *_, left, right in sorted(ranked)],
        unk_token=model.token("unk"),
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )


def _unigram(model: Model) -> models.Unigram:
    scored = [(piece, score) for piece, score, _ in model.pieces]
    return models.Unigram(scored, unk_id=model.ids["unk"], byte_fallback=model.byte_fallback)


def _split_names(model: Model) -> pre_tokenizers.Split:
    """Cut the names of control and byte pieces after their first character, where they occur in text.

    SentencePiece never makes those pieces out of text; Hugging Face's Unigram would, since they are in its vocabulary.
    """
    names = [piece for piece, _, kind in model.pieces if kind in (UNKNOWN, CONTROL) and len(piece) > 1]
    cuts = [f"{_literal(name[0])}(?={_literal(name[1:])})" for name in names]
    return pre_tokenizers.Split(Regex("|".join([*cuts, "<(?=0x[0-9A-F]{2}>)"])), "merged_with_previous")


def _literal(text: str) -> str:
    return "".join(char if char.isalnum() or char == "_" else rf"\x{{{ord(char):x}}}" for char in text)


def _parse(data: bytes) -> Model:
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(data):
        if number == 1:
            fields = dict(_fields(value))
            score = struct.unpack("<f", fields[2])[0] if 2 in fields else 0.0
            pieces.append((fields.get(1, b"").decode(), score, fields.get(3, NORMAL)))
        elif number == 2:
            trainer = dict(_fields(value))
        elif number == 3:
            normalizer = dict(_fields(value))
    defaults = {"unk": (40, 0), "bos": (41, 1), "eos": (42, 2), "pad": (43, -1)}
    return Model(
        pieces=pieces,
        kind=trainer.get(3, UNIGRAM),
        ids={role: _signed(trainer.get(n, default)) for role, (n, default) in defaults.items()},
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=normalizer.get(2, b""),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
    )


def _signed(value: int) -> int:
    """An int32 field: negative numbers are stored as 64-bit two's complement."""
    return value - 2**64 if value >= 2**63 else value


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a message: integers, and bytes of strings, messages and fixed-size numbers."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"byte {at:,} begins no field of a protocol buffer")
        if at + size > len(data):
            raise ValueError(f"it ends within a field, at byte {len(data):,} of at least {at + size:,}")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError(f"byte {at:,} begins no number of a protocol buffer")
