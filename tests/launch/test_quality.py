"""`arriero quality`: the whole loop with the built-in rater, its steps, its files and its page."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from toyrun import PATIENCE

from configs import children
from data_pipeline import run as data
from data_pipeline.quality import evaluate, label, prompt, sample
from launch import cli

PROSE = [
    "The bridge was built of stone, because the river floods every spring and wood does not last.",
    "Engineers measure the piers each year in order to be sure that they do not move.",
    "For example, a crack of one millimetre is reported, which means that the arch is closed.",
    "However, the older part is a monument, so that its shape must not be changed.",
    "The committee therefore decided to strengthen the foundation from within.",
]
POOR = "Click here to subscribe. Log in. Sign up. Cookies. Add to cart. All rights reserved."
WORDS = ["label.base_url=local", "sample.documents=240", "repeats=20", "seed=1"]
HOSTS = 40


def main(words: list[str]) -> int:
    return cli.main(["quality", *words])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data run of 400 documents of 40 hosts: half of them explain, half of them sell."""
    folder = tmp_path_factory.mktemp("quality")
    choose = random.Random(0)
    rows = []
    for host in range(HOSTS):
        for page in range(10):
            good = choose.random() < 0.5
            text = (
                " ".join(choose.sample(PROSE, 5) * 2)
                if good
                else " ".join(choose.sample(POOR.split() * 6, 60))
            )
            rows.append(
                {
                    "id": f"{host}-{page}",
                    "url": f"https://host{host}.org/{page}",
                    "text": f"{text} {host} {page}",
                }
            )
    (folder / "in.jsonl").write_bytes(b"".join(orjson.dumps(r) + b"\n" for r in rows))
    words = ["recipe=text", "recipe.reader=jsonl", f"input={folder}/in.jsonl", f"output={folder}/data"]
    assert (
        data.main(
            [*words, "stop_after=final", "executor.workers=1", "dedup.minhash=false", "dedup.lines=null"]
        )
        == 0
    )
    return folder / "data"


@pytest.fixture(scope="module")
def output(run_dir: Path) -> Path:
    """The loop over it."""
    folder = run_dir.parent / "quality"
    assert main([f"data.path={run_dir}", f"output={folder}", *WORDS]) == 0
    return folder


def read(output: Path, name: str) -> dict:
    return orjson.loads((output / f"{name}.json").read_bytes())


def test_the_loop_ends_with_a_classifier_measured_on_other_hosts(output: Path) -> None:
    rows = sample.read(output / "sample.jsonl")
    assert len(rows) == 240 == read(output, "sample")["chosen"]
    assert sum(row["weight"] for row in rows) == pytest.approx(400)
    measured = read(output, "measure")
    for name in ("fasttext", "embedding", "network"):
        value, low, high = measured["models"][name]["auc"]
        assert value > 0.95
        assert low <= value <= high
        assert len(measured["models"][name]["thresholds"]) == 5
        assert (
            sum(r["rows"] for r in measured["models"][name]["by_source"]) == measured["models"][name]["rows"]
        )
    assert measured["repeat_agreement"]["documents"] == 20
    scores = pq.read_table(output / "scores").to_pydict()
    assert len(scores["id"]) == 400
    for t in read(output, "threshold")["thresholds"]:
        assert t["documents"] >= t["target"] - 1e-9
        assert all(e["score"] >= t["threshold"] - 1e-3 for e in t["above"])
        assert all(e["score"] <= t["threshold"] + 1e-3 for e in t["below"])
    page = (output / "report.html").read_text()
    for title in (
        "The rater",
        "The classifiers",
        "Thresholds",
        "Documents at each score",
        "Words that weigh most",
    ):
        assert title in page


def test_what_is_done_is_skipped_and_a_step_alone_redoes_what_changed(
    run_dir: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"data.path={run_dir}", f"output={output}", *WORDS]
    assert main(words) == 0
    assert capsys.readouterr().out.count("unchanged") == 7
    assert main([*words, "step=threshold", "retention=[0.2]"]) == 0
    assert len(read(output, "threshold")["thresholds"]) == 1
    assert main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed if line.endswith("unchanged")] == [
        *("sample", "label", "train", "measure", "score", "report"),
    ]


def test_good_may_be_the_best_share_of_the_documents(
    run_dir: Path, output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "share"
    shutil.copytree(output, folder)
    words = [f"data.path={run_dir}", f"output={folder}", *WORDS, "step=train"]
    assert main([*words, "good=5"]) == 1  # a label that this rater gives to none of them
    assert "they go from 0 to 4: choose another `good`, or `good_share=0.3`" in capsys.readouterr().err
    assert main([*words, "good_share=0.25"]) == 0
    # Equal labels count together.
    assert sum(read(folder, "train")["good"].values()) >= 0.2 * len(sample.read(folder / "sample.jsonl"))


def test_answers_outlast_a_change_of_rubric_and_of_sample(
    run_dir: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"data.path={run_dir}", f"output={output}", *WORDS]
    before = (output / "labels.jsonl").read_bytes()
    assert main([*words, "step=label", "label.rubric=code"]) == 0
    assert main([*words, "step=sample", "sample.documents=50"]) == 0
    assert main([*words, "step=label"]) == 0
    assert "50 labels (50 known before)" in capsys.readouterr().out
    assert main([*words, "step=sample"]) == main([*words, "step=label"]) == 0
    assert "240 labels (240 known before)" in capsys.readouterr().out
    assert (output / "labels.jsonl").read_bytes() == before


def test_a_step_without_its_input_names_the_step_before(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"data.path={run_dir}", f"output={tmp_path / 'q'}", *WORDS, "step=train"]) == 1
    assert (
        "sample.jsonl does not exist; run `arriero quality` with step=sample first" in capsys.readouterr().err
    )
    (tmp_path / "empty").mkdir()
    assert main([f"data.path={tmp_path / 'empty'}", f"output={tmp_path / 'q'}", *WORDS]) == 1
    assert "is no run of `arriero data`" in capsys.readouterr().err


def test_a_killed_loop_goes_on_and_ends_with_the_same_files(
    run_dir: Path, output: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    # Ten labels a second, and killed when some are there.
    words = [f"data.path={run_dir}", f"output={again}", *WORDS]
    command = children.command("launch.quality", *words, "label.requests_per_minute=600")
    process = subprocess.Popen(command, env=children.environment(), stdout=subprocess.DEVNULL)
    partial = again / "answers.jsonl"
    while process.poll() is None and not (partial.is_file() and partial.read_bytes().count(b"\n") > 5):
        pass
    process.kill()
    process.wait(PATIENCE)
    assert not (again / "labels.jsonl").exists()
    assert main(words) == 0
    for name in (
        "sample.jsonl",
        "labels.jsonl",
        "quality.bin",
        "train.json",
        "measure.json",
        "threshold.json",
    ):
        assert (again / name).read_bytes() == (output / name).read_bytes(), name
    shutil.rmtree(again)


def test_a_user_copies_a_rubric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs/rubric").mkdir(parents=True)
    levels = "\n".join(f"  - level {k}" for k in range(6))
    file = tmp_path / "configs/rubric/mine.yaml"
    file.write_text(f"name: mine\njudge: how blue it is\nlevels:\n{levels}\ngood: 4\n")
    monkeypatch.chdir(tmp_path)
    mine = prompt.rubric("mine")
    assert mine.good == 4
    asked = prompt.messages("text", 100, mine)[0]["content"]
    assert "Judge how blue it is, on this scale:\n0 level 0\n" in asked
    assert "5 level 5\n4 level 4" in prompt.messages("text", 100, mine, "digit", reverse=True)[0]["content"]
    file.write_text(file.read_text().replace("  - level 5\n", ""))
    with pytest.raises(prompt.ConfigError, match="`levels` has 5 entries; expected one for each of 0 to 5"):
        prompt.rubric("mine")
    for name in ("educational", "writing", "mathematics", "reasoning", "code"):
        assert prompt.rubric(name).name == name


def test_a_label_is_the_expectation_over_the_probabilities_of_the_digits() -> None:
    def choice(*top: tuple[str, float]) -> dict:
        entries = [{"token": t, "logprob": float(np.log(p))} for t, p in top]
        return {"logprobs": {"content": [{"top_logprobs": entries}]}}

    found = prompt.expectation(choice(("The", 0.5), ("4", 0.2), (" 4", 0.1), ("1", 0.1), ("9", 0.05)))
    assert found is not None
    assert found[0] == pytest.approx((0.3 * 4 + 0.1) / 0.4)
    assert found[1] == pytest.approx([0, 0.25, 0, 0, 0.75, 0], abs=1e-6)
    assert prompt.expectation(choice(("The", 0.5))) is None
    assert prompt.expectation({"logprobs": None}) is None


def test_a_key_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    config = label.LabelConfig(base_url="http://127.0.0.1:9/v1", api_key_env="MY_KEY")
    with pytest.raises(ValueError, match="the environment variable MY_KEY is not set"):
        label.ask([("0", "text")], config, 0, tmp_path / "l.jsonl")


def test_strata_share_the_sample_by_the_square_root_of_their_size() -> None:
    sizes = Counter({("a",): 10_000, ("b",): 100, ("c",): 3})
    shares = sample.allocate(sizes, 113)
    assert sum(shares.values()) == 113
    assert shares[("c",)] in (1, 2, 3)
    assert shares[("a",)] / shares[("b",)] == pytest.approx(10, rel=0.2)
    assert sample.allocate(sizes, 20_000) == dict(sizes)


def test_measures_are_those_of_their_definitions() -> None:
    random_state = np.random.default_rng(0)
    scores, good = random_state.random(300).round(1), random_state.random(300) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[good] for b in scores[~good]]
    assert evaluate.auc(scores, good) == pytest.approx(np.mean(pairs))
    assert evaluate.spearman(np.arange(9.0), np.arange(9.0) ** 3) == pytest.approx(1)
    same = evaluate.agreement(np.array([0.0, 3, 5]), np.array([0.0, 3, 5]), 3)
    assert (same["equal"], same["kappa"], same["good_f1"]) == (1, 1, 1)
