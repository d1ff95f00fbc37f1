"""Bounds, paths and dates that stand with the fields: every number has bounds, every value is checked by itself."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs import edge
from configs.build import describe, hints
from configs.fields import Bounds, ConfigError
from configs.schema import data_verbs, pipeline, train

SCHEMAS = [
    v
    for module in (pipeline, train)
    for v in vars(module).values()
    if isinstance(v, type) and dataclasses.is_dataclass(v) and v.__module__ == module.__name__
]


def _unbounded(kind: typing.Any) -> Iterator[type]:
    """Numbers in a type that no bounds stand beside."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind in (int, float):
        yield kind
    elif origin is typing.Annotated and any(isinstance(m, Bounds) for m in args[1:]):
        yield from _unbounded(args[0]) if typing.get_origin(args[0]) is tuple else ()
    elif origin is not typing.Literal:
        for arg in args:
            yield from _unbounded(arg)


@pytest.mark.parametrize("cls", SCHEMAS, ids=lambda c: c.__name__)
def test_every_number_has_bounds(cls: type) -> None:
    assert not [name for name, kind in hints(cls).items() if list(_unbounded(kind))]


@pytest.mark.parametrize(
    ("schema", "section", "key", "values"),
    [
        (train.TrainConfig, "train", "steps", [0, -1, 1.5, 1e300, float("nan"), "many", True]),
        (train.TrainConfig, "train", "eval_sequences", [0, -1, 10**30]),
        (train.TrainConfig, "train", "loss_chunk_tokens", [-1]),
        (train.TrainConfig, "train", "z_loss", [-1e-4, float("nan"), 2]),
        (train.DataConfig, "data", "prefetch", [0, -1, 10**6]),
        (train.DataConfig, "data", "phases", [[]]),
        (train.ResilienceConfig, "resilience", "heartbeat_every", [0, -1, float("inf"), 1e9]),
        (train.ResilienceConfig, "resilience", "collective_timeout", [0, -1, float("nan"), 1e400, 1e12]),
        (train.ResilienceConfig, "resilience", "max_skipped", [0, -1]),
        (train.ModelConfig, "model", "init_std", [0, -1, float("nan"), 1e9]),
        (train.ModelConfig, "model", "norm_eps", [0, -1, 1]),
        (train.ModelConfig, "model", "rope_theta", [0, 1, -1, float("inf")]),
        (train.OptimConfig, "optim", "lr", [0, -1, 1e400, float("nan")]),
        (train.OptimConfig, "optim", "betas", [[0.9, 1.0], [-0.1, 0.9]]),
        (pipeline.DataRun, "", "seed", [-1, 10**20]),
        (pipeline.DataRun, "", "unit_bytes", [0]),
        (pipeline.DataRun, "", "sample", [0, 2, float("nan")]),
        (pipeline.DataRun, "", "cutoff", ["yesterday", "2024-13-01"]),
        (pipeline.DataRun, "", "input", ["", " "]),
        (pipeline.DataRun, "", "output", [""]),
        (pipeline.RecipeConfig, "recipe", "max_record_bytes", [-1]),
        (pipeline.TokenizerConfig, "tokenizer", "vocab_size", [10]),
        (pipeline.PackConfig, "pack", "sequence_length", [0, 1]),
        (pipeline.PackConfig, "pack", "heldout_fraction", [1, 2, -0.1]),
        (train.RunConfig, "run", "dir", ["", "  "]),
    ],
)
def test_a_value_out_of_bounds_is_one_line_that_says_what_it_may_be(
    schema: type, section: str, key: str, values: list[typing.Any]
) -> None:
    name = f"{section}.{key}" if section else key
    for value in values:
        with pytest.raises(ConfigError) as error:
            edge.build(schema, {key: value}, section)
        told = str(error.value)
        assert told.startswith(f"`{name}") and "\n" not in told, told
        assert any(word in told for word in ("must be", "is empty")), told


def test_bounds_say_themselves_in_words() -> None:
    assert describe(hints(train.TrainConfig)["steps"]) == "an integer of at least 1 (steps)"
    assert describe(hints(train.OptimConfig)["lr"]) == "a number above 0"
    assert describe(hints(pipeline.PackConfig)["heldout_fraction"]) == "a number of at least 0 and below 1"
    assert describe(hints(train.DataConfig)["phases"]) == "a list of at least 1 (phases)"


def test_whole_numbers_in_scientific_notation_are_integers() -> None:
    config = edge.load("train", train.TrainRun, ["data.path=d", "run.dir=r", "train.steps=1e6"])
    assert config.train.steps == 1_000_000 and type(config.train.steps) is int


def test_paths_replace_the_home_folder_and_environment_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", "/home/köln")
    monkeypatch.setenv("PLACE", "a,b=(c)")
    build = lambda text: edge.build(train.RunConfig, {"dir": text}, "run").dir  # noqa: E731
    assert build("~/runs") == "/home/köln/runs"
    assert build("$PLACE/x") == build("${PLACE}/x") == "a,b=(c)/x"
    assert build("s3://bucket//x") == "s3://bucket//x"
    with pytest.raises(ConfigError, match=r"`run\.dir` names the environment variable `NOT_THERE`"):
        build("$NOT_THERE/x")
    (tmp_path / "$NOT_THERE").mkdir()
    assert build(f"{tmp_path}/$NOT_THERE") == f"{tmp_path}/$NOT_THERE"


def test_a_dataset_is_named_by_its_folder_its_packed_dataset_or_its_manifest(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "manifest.json").write_text("{}")
    (tmp_path / "config.yaml").write_text("")
    for spelling in (tmp_path, packed, packed / "manifest.json"):
        data = {"path": str(spelling)}
        assert edge.build(train.DataConfig, data).path == str(packed)
        assert edge.build(data_verbs.PackedPath, data).path == str(packed)
        assert edge.build(train.OtherData, data).path == str(packed)
        assert edge.build(data_verbs.WhatifRun, {"data": data}).data.path == str(tmp_path)
        assert edge.load("data", pipeline.DataRun, [f"output={spelling}"]).output == str(tmp_path)
    assert edge.load("data", pipeline.DataRun, [f"output={tmp_path}/new/packed"]).output.endswith("packed")
    for word, says in (
        ("output=x", "unknown key `output`; did you mean `data.path`?"),
        ("data=x", "`data` must be a mapping of path, but it is 'x'; one value is data.path=…"),
    ):
        with pytest.raises(ConfigError) as error:
            edge.load("whatif", data_verbs.WhatifRun, [word])
        assert str(error.value) == says
