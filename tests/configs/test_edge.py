"""The edge: every key documented, every mistake one readable sentence, free text taken as it is."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from configs import edge
from configs.schema import data_verbs, pipeline, train

CONFIGS = {
    "data": pipeline.DataRun,
    "tokenizer": data_verbs.TokenizerRun,
    "classify": data_verbs.ClassifyRun,
    "quality": data_verbs.QualityRun,
    "trace": data_verbs.TraceRun,
    "whatif": data_verbs.WhatifRun,
    "train": train.TrainRun,
    "launch": train.LaunchRun,
    "evaluate": train.EvaluateRun,
    "generate": train.GenerateRun,
    "export": train.ExportRun,
    "import": train.ImportRun,
    "report": train.ReportRun,
    "size": train.PlanRun,
    "plan": train.PlanRun,
}
NEEDED = ["data.path=d", "run.dir=r"]


def _dataclasses(module: typing.Any) -> list[type]:
    return [
        v
        for v in vars(module).values()
        if getattr(v, "__module__", "") == module.__name__ and dataclasses.is_dataclass(v)
    ]


@pytest.mark.parametrize("cls", _dataclasses(pipeline) + _dataclasses(train), ids=lambda c: c.__name__)
def test_every_field_is_documented_and_every_dataclass_frozen(cls: type) -> None:
    docs = edge.field_docs(cls)
    missing = [f.name for f in dataclasses.fields(cls) if not docs.get(f.name)]
    assert not missing, f"{cls.__name__} fields without documentation: {missing}"
    assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]


@pytest.mark.parametrize("config", CONFIGS)
def test_every_verb_composes_once_its_required_keys_are_given(config: str) -> None:
    keys = edge.known_keys(CONFIGS[config])
    required = [k for k in ("data.path", "run.dir", "input", "output") if k in keys]
    edge.load(config, CONFIGS[config], [f"{k}=x" for k in required])


@pytest.mark.parametrize(
    "option", sorted(p.stem for p in (Path(edge.__file__).parent / "model").glob("*.yaml"))
)
def test_every_model_preset_builds(option: str) -> None:
    model = edge.load("train", train.TrainRun, [*NEEDED, f"model={option}"]).model
    assert model.dim % model.n_heads == 0 and model.n_heads % model.n_kv_heads == 0


@pytest.mark.parametrize(
    "option", sorted(p.stem for p in (Path(edge.__file__).parent / "recipe").glob("*.yaml"))
)
def test_every_recipe_builds(option: str) -> None:
    assert edge.load_group("recipe", option, pipeline.RecipeConfig).name == option


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["train.stepz=3"], ["train.stepz", "did you mean `train.steps`"]),
        (["trian.steps=3"], ["trian.steps", "did you mean `train.steps`"]),
        (["optim.learning_rate=1"], ["optim.learning_rate"]),
        (["train.steps=many"], ["train.steps", "an integer", "'many'"]),
        (["train.dtype=fp8"], ["train.dtype", "'bf16'", "'fp8'"]),
        (["optim.betas=[0.9]"], ["optim.betas", "2 entries"]),
        (["model=8bb"], ["model=8bb", "did you mean `8b`"]),
        (["just words"], ["just words", "key=value"]),
        (["checkpoint.asynchronous=1"], ["checkpoint.asynchronous", "true or false"]),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key_and_what_was_expected(
    overrides: list[str], parts: list[str]
) -> None:
    with pytest.raises(edge.ConfigError) as error:
        edge.load("train", train.TrainRun, [*NEEDED, *overrides])
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_value_names_the_full_key() -> None:
    with pytest.raises(edge.ConfigError, match=r"`data\.path` is required"):
        edge.load("train", train.TrainRun, ["run.dir=r"])


def test_keys_that_the_yaml_leaves_out_can_be_set() -> None:
    config = edge.load("train", train.TrainRun, [*NEEDED, "train.compile=true", "model.init_from=runs/x"])
    assert config.train.compile is True and config.model.init_from == "runs/x"


@pytest.mark.parametrize(
    "text",
    [
        "The",
        "It's, a test",
        'say "hi"',
        "'",
        "a\\",
        "it's \\' odd",
        "C:\\x",
        "${oc.env:HOME}",
        "{a: [1,2]}",
        "a=b",
        "",
        "a\nb",
        "ünï",
    ],
)
def test_free_text_reaches_the_code_as_it_was_typed(text: str) -> None:
    assert edge.load("generate", train.GenerateRun, ["run.dir=r", f"prompt={text}"]).prompt == text


def test_paths_may_hold_other_keys() -> None:
    words = ["data.path=d", "run.dir=runs/lr-${optim.lr}-it's", "optim.lr=0.001"]
    assert edge.load("train", train.TrainRun, words).run.dir == "runs/lr-0.001-it's"


def test_sources_and_rules_are_given_in_hydra_syntax() -> None:
    config = edge.load(
        "data",
        pipeline.DataRun,
        [
            "output=o",
            "sources=[{name:a,recipe:web,input:/x/y.gz}]",
            "+recipe.filter.rules.short={signal:stats.n_chars,min:3}",
        ],
    )
    assert config.sources == (pipeline.SourceConfig("a", "web", "/x/y.gz"),)
    assert config.recipe.filter.rules["short"] == pipeline.RuleConfig("stats.n_chars", min=3.0)


def test_a_saved_config_reads_back_equal(tmp_path: Path) -> None:
    config = edge.load("train", train.TrainRun, [*NEEDED, "model=8b"])
    (tmp_path / "config.yaml").write_text(edge.to_yaml(config))
    assert edge.read(tmp_path / "config.yaml", train.TrainRun) == config


def test_hydras_own_flags_work(tmp_path: Path) -> None:
    script = tmp_path / "verb.py"
    script.write_text(
        "import sys\nfrom configs import edge\nfrom configs.schema.train import TrainRun\n"
        "sys.exit(edge.main('train', TrainRun, lambda c: print('steps', c.train.steps), 'A verb.'))\n"
    )

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(script), *NEEDED, *arguments], capture_output=True, text=True, cwd=tmp_path
        )

    shown = call("--cfg", "job", "train.compile=true")
    assert shown.returncode == 0 and "compile: true" in shown.stdout, shown.stderr
    swept = call("--multirun", "train.steps=3,5", "run.dir=r/${train.steps}")
    assert swept.returncode == 0 and "steps 3" in swept.stdout and "steps 5" in swept.stdout, swept.stderr
    for words, message in (
        (("--cfg", "job", "model=debgu"), "`model=debgu` is unknown; did you mean `debug`?"),
        (
            ("--multirun", "seed=a,b", "run.dir=r/${seed}"),
            "`seed` must be an integer of at least 0, but it is 'a'",
        ),
        (("--cgf", "job"), "unknown flag `--cgf`; did you mean `--cfg`?"),
    ):
        refused = call(*words)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr
        assert refused.stderr.splitlines()[0].startswith(f"error: {message}"), refused.stderr
    helped = call("--help")
    assert helped.returncode == 0 and "train.micro_batch_size" in helped.stdout
    wrong = call("train.stepz=1")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: unknown key `train.stepz`")
    assert "Traceback" not in wrong.stderr


def test_one_name_for_a_list_needs_no_brackets() -> None:
    for given in ("DIR", ["DIR"]):
        assert edge.build(pipeline.DedupConfig, {"index": given}, "dedup").index == ("DIR",)
