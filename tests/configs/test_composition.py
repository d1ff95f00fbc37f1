"""Hydra knows the schemas: one place of each default, its own commands, folders of one's own."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from configs import composition, edge, manual, options
from configs.build import defaults, groups_of, known_keys
from configs.schema import data_verbs, pipeline, train
from data_pipeline.recipes import with_recipes

VERBS: dict[str, type] = {
    "data": pipeline.DataRun,
    "tokenizer": data_verbs.TokenizerRun,
    "classify": data_verbs.ClassifyRun,
    "quality": data_verbs.QualityRun,
    "trace": data_verbs.TraceRun,
    "remove": data_verbs.RemoveRun,
    "whatif": data_verbs.WhatifRun,
    "train": train.TrainRun,
    "launch": train.LaunchRun,
    "evaluate": train.EvaluateRun,
    "generate": train.GenerateRun,
    "average": train.AverageRun,
    "export": train.ExportRun,
    "import": train.ImportRun,
    "report": train.ReportRun,
    "plan": train.PlanRun,
}
ROOT = Path(options.OURS).parent


@functools.cache
def _composed(verb: str) -> dict[str, Any]:
    return composition.plain(composition.compose(verb, [], VERBS[verb]), complete=False)


@pytest.mark.parametrize("verb", VERBS)
def test_composition_holds_every_key_and_help_shows_its_values(verb: str) -> None:
    composed = _composed(verb)
    assert manual.values(VERBS[verb]) == composed
    absent = ("model.rope_scaling.", "filter.")  # parts that are null by default
    missing = [
        k
        for k in known_keys(VERBS[verb])
        if k not in set(options.flat(composed)) and not k.startswith(absent)
    ]
    assert not missing
    text = edge.help_text(verb, VERBS[verb], "A verb.")
    for key in known_keys(VERBS[verb]):
        assert key in text
    assert "None" not in text


@pytest.mark.parametrize("verb", VERBS)
def test_a_default_is_that_of_the_dataclass_unless_an_option_was_chosen(verb: str) -> None:
    chosen = {g: options.settings(g, o) for g, o in groups_of(VERBS[verb]).items() if o is not None}
    expected: dict[str, Any] = defaults(VERBS[verb])
    for settings in chosen.values():
        expected = options.merge(expected, settings)
    assert _composed(verb) == expected
    assert set(chosen) <= {"model", "recipe"}, "other defaults belong to the dataclass"
    assert ConfigStore.instance().load(f"arriero_{verb}.yaml").node is not None


@pytest.mark.parametrize("group", ["optim", "schedule", "tracker", "cluster", "tokenizer", "dedup"])
def test_files_hold_differences_only(group: str) -> None:
    schema = pipeline.DataRun if group in groups_of(pipeline.DataRun) else train.LaunchRun
    usual = defaults(schema)[group]
    first = {"optim": "adamw", "schedule": "cosine", "tracker": "offline", "cluster": "local"}.get(group)
    for option in options.names(group):
        same = [
            k
            for k, v in options.settings(group, option)[group].items()
            if usual[k] == v != {} and k != "name"
        ]
        assert not same or option == first, f"{group}/{option}.yaml repeats the default of {same}"


def test_what_is_deleted_falls_back_to_the_dataclass_and_an_unknown_key_is_named() -> None:
    words = ["data.path=d", "run.dir=r", "experiment=llama3_8b"]
    assert edge.load("train", train.TrainRun, words).schedule.min_ratio == 0.01
    assert edge.load("train", train.TrainRun, [*words, "~schedule.min_ratio"]).schedule.min_ratio == 0.1
    with pytest.raises(
        edge.ConfigError, match=r"unknown key `schedule\.min_ration`; did you mean `schedule\.min"
    ):
        edge.load("train", train.TrainRun, [*words, "~schedule.min_ration"])


def _arriero(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(
        [sys.executable, "-P", "-m", "launch.cli", *words], capture_output=True, text=True, cwd=cwd, env=env
    )


def test_hydras_own_commands_work(tmp_path: Path) -> None:
    def out(*words: str) -> str:
        done = _arriero(*words, cwd=tmp_path)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout

    shown = out("train", "~optim.eps", "train.steps=1e6", "--cfg", "job")
    assert "eps" not in shown.split("optim:")[1].split("schedule:")[0]
    assert "gc_every: 50" in shown and "prefetch: 4" in shown
    assert "weight_decay: 0.0" in out("train", "optim=muon", "--cfg", "job", "--package", "optim")
    assert "arriero_train" in out("train", "--info", "defaults-tree", "model=8b")
    assert "pkg://configs" in out("data", "-i", "searchpath")
    assert "Hydra" in out("data", "--hydra-help")
    assert not list(tmp_path.iterdir())


def test_shell_completion_knows_verbs_groups_options_and_keys(tmp_path: Path) -> None:
    def completed(line: str) -> list[str]:
        done = _arriero("-sc", "query=bash", cwd=tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert {"train", "trace"} <= set(completed("arriero tr")) and "data" not in completed("arriero tr")
    assert "model=8b" in completed("arriero train model=8")
    assert "optim.lr=" in completed("arriero train optim.l")
    assert "recipe=wikipedia" in completed("arriero data recipe=w")
    assert "complete" in _arriero("-sc", "install=bash", cwd=tmp_path).stdout


def test_a_sweep_leaves_nothing_but_its_runs(tmp_path: Path) -> None:
    words = ("cluster.nproc=2,4", "output=plans/${cluster.nproc}.yaml", "model.size=33m", "vocab_size=4096")
    done = _arriero("size", "--multirun", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == {
        "plans/2.yaml",
        "plans/4.yaml",
    }
    same = _arriero("size", "--multirun", "cluster.nproc=2,4", "output=plan.yaml", cwd=tmp_path)
    assert same.returncode == 2 and "every job of this sweep would write to" in same.stderr


def test_a_package_line_that_hydra_does_not_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "configs/experiment/mine.yaml"
    file.parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    words = ["data.path=d", "run.dir=r", "experiment=mine"]
    file.write_text("# Mine.\n# @package _global_\ntrain: {steps: 7}\n")
    with pytest.raises(edge.ConfigError, match=r"mine.yaml: `# @package _global_` must be the first line"):
        edge.load("train", train.TrainRun, words)
    file.write_text("\n# @package _global_\n# Mine.\ntrain: {steps: 7}\n")
    assert edge.load("train", train.TrainRun, words).train.steps == 7


def test_folders_of_ones_own_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs/experiment").mkdir(parents=True)
    (tmp_path / "configs/experiment/mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: mine\ntrain: {steps: 1e3}\n"
    )
    (tmp_path / "configs/model").mkdir()
    (tmp_path / "configs/model/mine.yaml").write_text(
        "name: mine\ndim: 32\nn_layers: 1\nn_heads: 2\nn_kv_heads: 1\nffn_dim: 64\n"
    )
    (tmp_path / "configs/model/8b.yaml").write_text("defaults: [mine]\nname: smaller\n")
    (tmp_path / "other/recipe").mkdir(parents=True)
    (tmp_path / "other/filter").mkdir()
    (tmp_path / "other/filter/strict.yaml").write_text(
        "name: strict\nrules:\n  gopher.short: {signal: gopher.n_words, min: 500}\n"
    )
    (tmp_path / "other/recipe/notes.yaml").write_text(
        "defaults:\n  - /filter@filter: strict\n  - _self_\nname: notes\ntext_key: body\n"
    )
    monkeypatch.chdir(tmp_path)
    config = edge.load("train", train.TrainRun, ["data.path=d", "run.dir=r", "experiment=mine"])
    assert (config.model.name, config.model.dim, config.train.steps) == ("mine", 32, 1000)
    assert (
        edge.load("train", train.TrainRun, ["data.path=d", "run.dir=r", "model=8b"]).model.name == "smaller"
    )
    with options.searching(["other"]):
        recipe = edge.load("data", pipeline.DataRun, ["output=o", "input=i", "recipe=notes"]).recipe
        assert recipe == edge.load_group("recipe", "notes", pipeline.RecipeConfig)
        sources = (
            "sources=[{name:a,recipe:notes,input:i},{name:b,recipe:text,input:j,url_key:link,filter:strict}]"
        )
        a, b = edge.load("data", pipeline.DataRun, ["output=o", sources], with_recipes).sources
    assert a.recipe == recipe
    assert isinstance(b.recipe, pipeline.RecipeConfig) and b.recipe.url_key == "link"
    assert b.recipe.filter.name == "strict"
    assert recipe.text_key == "body" and recipe.filter.rules["gopher.short"].min == 500  # type: ignore[union-attr]
    with pytest.raises(edge.ConfigError, match="recipe `notes` is unknown"):
        edge.load_group("recipe", "notes", pipeline.RecipeConfig)
    with pytest.raises(edge.ConfigError, match="is not a folder"), options.searching(["nowhere"]):
        pass


def test_an_error_in_a_file_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs/experiment").mkdir(parents=True)
    file = tmp_path / "configs/experiment/mine.yaml"
    monkeypatch.chdir(tmp_path)
    for content, told in (("train: {stepz: 3}", "train.stepz"), ("optim: {lr: fast}", "optim.lr")):
        file.write_text(f"# @package _global_\n{content}\n")
        with pytest.raises(edge.ConfigError) as error:
            edge.load("train", train.TrainRun, ["data.path=d", "run.dir=r", "experiment=mine"])
        assert f"`{told}`" in str(error.value) and str(file) in str(error.value)


@pytest.mark.parametrize(
    "word",
    [
        "recipe=text",
        "recipe.text_key=body",
        "recipe.filter.rules.gopher.short.min=3",
        "filter@recipe.filter=c4",
    ],
)
@pytest.mark.parametrize("given", ["sources=[{name:a,recipe:web,input:i}]", "source=demo"])
def test_what_changes_a_recipe_that_no_source_has_is_refused(word: str, given: str) -> None:
    with pytest.raises(edge.ConfigError, match=f"^`{word}` changes the recipe of `input`, but `sources`"):
        edge.load("data", pipeline.DataRun, ["output=o", given, word], with_recipes)
    edge.load("data", pipeline.DataRun, ["output=o", given], with_recipes)
    edge.load("data", pipeline.DataRun, ["output=o", "input=i", word], with_recipes)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["~model.rope_scaling"], "`~model.rope_scaling` has nothing to delete: `model.rope_scaling` is null already"),
        (["~train.stepz"], "unknown key `train.stepz`; did you mean `train.steps`?"),
        (["--cfg", "jbo"], "`--cfg jbo` is unknown; did you mean `job`? (job, hydra, all)"),
        (["-c=hydro"], "`-c hydro` is unknown; did you mean `hydra`? (job, hydra, all)"),
    ],
)  # fmt: skip
def test_hydras_options_and_deletions_have_errors_of_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["data.path=d", "run.dir=r", *words]
    assert edge.main("train", train.TrainRun, lambda config: 0, "", words) == 2
    assert capsys.readouterr().err == f"error: {says}\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("train: {steps: 3}\n", "unknown key `experiment` ({path}: `# @package _global_` must be the first line)"),
        ("", "unknown key `experiment` ({path}: `# @package _global_` must be the first line)"),
        (
            "# @package _global_\nrun: {name: köln}\n",
            "{path} is not UTF-8; save it in that encoding (invalid start byte)",
        ),
        (
            "# @package _global_\ntrain: {steps: [3\n",
            "{path}, line 3, is not valid YAML: expected ',' or ']', but got '<stream end>'",
        ),
        (
            "# @package _global_\nrun: {dir: ${seed}}\n",
            "{path}, line 2, is not valid YAML: expected ',' or '}', but got '{'; between braces or brackets, `${…}` needs "
            "quotes",
        ),
        (
            "# @package _global_\ndefaults: [override /modl: 8b]\n",
            "the `defaults` of `experiment/mine` override the group `modl`, which is not there; did you mean `model`?",
        ),
        (
            "# @package _global_\ndefaults: [mine]\n",
            "the `defaults` of an option lead back to it; look at the files of experiment=mine",
        ),
        (
            "# @package _global_\ntrain: 3\n",
            "`train` must be a mapping of steps, global_batch_size, micro_batch_size, sequence_length, …, but it is 3; one "
            "value is train.steps=… (from {path})",
        ),
    ],
    ids=["no header", "empty", "encoding", "brackets", "interpolation", "group", "itself", "no mapping"],
)  # fmt: skip
def test_a_file_that_is_wrong_is_one_line_that_names_it(
    content: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "configs/experiment/mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="latin-1" if "ö" in content else "utf-8")
    monkeypatch.chdir(tmp_path)
    for more in ([], ["--cfg", "job"]):
        words = ["data.path=d", "run.dir=r", "experiment=mine", *more]
        assert edge.main("train", train.TrainRun, lambda config: 0, "", words) == 2
        assert capsys.readouterr().err == f"error: {says.replace('{path}', str(path))}\n"
