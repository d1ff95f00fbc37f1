"""What stands around a document is what the tokenizer's own template says, unless the configuration says otherwise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from configs.schema.pipeline import TokenizerConfig
from data_pipeline.document import SCHEMA
from data_pipeline.packed import TokenizerInfo, read_template
from data_pipeline.tokenize import TokenShard, encode_shard, load_tokenizer, make_tokenizer

TEXTS = ["the river rises", "in the hills </s> above <s> the town"]
TEMPLATES = {
    "gpt2": (None, [], ["</s>"]),
    "llama": ("<s> $A", ["<s>"], ["</s>"]),
    "t5": ("$A </s>", [], ["</s>"]),
    "both": ("<s> $A </s>", ["<s>"], ["</s>"]),
    "two": ("<s> <x> $A", ["<s>", "<x>"], ["</s>"]),
}


def write(folder: Path, template: str | None, **settings: object) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "</s>", "<x>")])
    byte_level = processors.ByteLevel(trim_offsets=False)
    if template is None:
        tokenizer.post_processor = byte_level
    else:
        special = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>", "<x>")]
        tokenizer.post_processor = processors.Sequence(
            [byte_level, processors.TemplateProcessing(single=template, special_tokens=special)]
        )
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    declared = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(declared | settings))
    return folder


def documents(folder: Path, output: Path) -> list[list[int]]:
    rows = [{"id": f"{i:032x}", "source": "s", "group": f"{i}", "text": t} for i, t in enumerate(TEXTS)]
    encode_shard(pa.Table.from_pylist(rows, SCHEMA), folder, output / "0.arrow")
    shard = TokenShard(output / "0.arrow")
    return [shard.tokens(row).tolist() for row in range(len(TEXTS))]


@pytest.mark.parametrize("kind", TEMPLATES)
def test_documents_follow_the_template(kind: str, tmp_path: Path) -> None:
    template, begin, end = TEMPLATES[kind]
    loaded = load_tokenizer(write(tmp_path / "tok", template))
    ids = loaded.tokenizer.token_to_id
    expected_begin, expected_end = [ids(t) for t in begin], [ids(t) for t in end]
    assert list(loaded.info.begin) == expected_begin and list(loaded.info.end) == expected_end
    for tokens, text in zip(documents(tmp_path / "tok", tmp_path), loaded.encode(TEXTS), strict=True):
        assert tokens == [*expected_begin, *text, *expected_end]


@pytest.mark.parametrize("kind", TEMPLATES)
@pytest.mark.parametrize("bos", [True, False])
def test_the_configuration_wins(kind: str, bos: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "given", TEMPLATES[kind][0])
    own = load_tokenizer(path).info
    config = TokenizerConfig(path=str(path), bos=bos)
    info = make_tokenizer([], config, 0, tmp_path / "tok")
    assert info.begin == ((own.special["bos"],) if bos else ())
    assert info.end == own.end
    assert (info.hash == own.hash) == (info.begin == own.begin)
    bare = make_tokenizer([], replace(config, eos=False), 0, tmp_path / "bare")
    assert (bare.begin, bare.end) == (info.begin, ())
    assert make_tokenizer([], replace(config, bos=None, eos=False), 0, tmp_path / "own").begin == own.begin


@pytest.mark.parametrize("kind", TEMPLATES)
@pytest.mark.parametrize("bos", [None, True, False])
def test_transformers_agrees(kind: str, bos: bool | None, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    path = write(tmp_path / "given", TEMPLATES[kind][0])
    make_tokenizer([], TokenizerConfig(path=str(path), bos=bos), 0, tmp_path / "tok")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "tok")
    ours = Tokenizer.from_file(str(tmp_path / "tok/tokenizer.json"))
    begin, end = read_template(ours)
    text = ours.encode("the town", add_special_tokens=False).ids
    assert theirs("the town")["input_ids"] == [*begin, *text, *end]


@pytest.mark.parametrize(
    "settings", [{"add_bos_token": True}, {"add_eos_token": True}, {"add_bos_token": False}]
)
def test_settings_beside_tokenizer_json_count_for_nothing_as_in_transformers(
    settings: dict, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    path = write(tmp_path / "tok", "<s> $A", **settings)
    theirs = transformers.AutoTokenizer.from_pretrained(path)("the town")["input_ids"]
    ours = Tokenizer.from_file(str(path / "tokenizer.json"))
    begin, end = read_template(ours)
    assert theirs == [*begin, *ours.encode("the town", add_special_tokens=False).ids, *end]


def test_a_tokenizer_without_boundaries_is_refused_unless_none_are_wanted(tmp_path: Path) -> None:
    path = write(tmp_path / "given", None)
    content = json.loads((path / "tokenizer.json").read_text())
    content["added_tokens"] = []
    (path / "tokenizer.json").write_text(json.dumps(content))
    (path / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match=r"has no EOS token.*tokenizer\.eos=false"):
        make_tokenizer([], TokenizerConfig(path=str(path)), 0, tmp_path / "a")
    info = make_tokenizer([], TokenizerConfig(path=str(path), eos=False), 0, tmp_path / "b")
    assert (info.begin, info.end) == ((), ())
    with pytest.raises(ValueError, match=r"tokenizer\.bos is true, but .* has no BOS token"):
        make_tokenizer([], TokenizerConfig(path=str(path), eos=False, bos=True), 0, tmp_path / "c")


def test_what_earlier_releases_wrote_begins_with_bos() -> None:
    info = TokenizerInfo("0" * 64, 10, {"bos": 7, "eos": 8, "pad": 9})
    assert (info.begin, info.end) == ((7,), (8,))
