"""Text never becomes a boundary token, whatever a tokenizer's file says of its tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from data_pipeline.tokenize import load_tokenizer


def write_tokenizer(folder: Path, added: list[AddedToken]) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["the river rises in the hills above the town"], trainer)
    tokenizer.add_tokens(added)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return folder


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("options", [{}, {"lstrip": True}, {"single_word": True}])
def test_the_text_of_a_boundary_token_stays_text(
    tmp_path: Path, special: bool, options: dict[str, bool]
) -> None:
    added = [AddedToken(token, special=special, **options) for token in ("<s>", "</s>")]
    loaded = load_tokenizer(write_tokenizer(tmp_path / "tok", added))
    (ids,) = loaded.encode(["the </s> river<s> town</s>"])
    assert not {loaded.info.special["bos"], loaded.info.special["eos"]} & set(ids)
    assert (
        loaded.tokenizer.decode(ids, skip_special_tokens=False).replace(" ", "") == "the</s>river<s>town</s>"
    )
