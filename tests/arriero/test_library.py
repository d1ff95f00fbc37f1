"""`import arriero`: light, complete, and each function does its job on a small input."""

from __future__ import annotations

import ast
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toyrun import ROOT, documents, overrides

import arriero

ARTICLE = "A sentence of the article that is long enough to be its text. " * 8


def test_every_public_name_is_there_with_a_docstring() -> None:
    assert arriero.__all__ == sorted(arriero.__all__)
    for name in arriero.__all__:
        value = getattr(arriero, name)
        assert value.__doc__ and not value.__doc__.startswith(f"{name}("), (
            f"{name} has no docstring of its own"
        )
        assert name in dir(arriero)


def test_type_checkers_see_the_same_names_as_python() -> None:
    (block,) = (
        node for node in ast.parse(Path(arriero.__file__).read_text()).body if isinstance(node, ast.If)
    )
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {i.module: tuple(a.name for a in i.names) for i in imports} == arriero._HOMES
    assert sorted(name for names in arriero._HOMES.values() for name in names) == arriero.__all__


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(AttributeError, match=r"'arriero' has no attribute 'LLama'; it has .*Llama"):
        arriero.LLama  # noqa: B018


def loaded(code: str) -> set[str]:
    """Modules that a new process has imported after `code`."""
    code += "; import json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_none_of_its_libraries() -> None:
    heavy = {"torch", "numba", "numpy", "pyarrow", "hydra", "yaml", "tokenizers", "datatrove"}
    assert loaded("import arriero; dir(arriero)") & heavy == set()
    assert loaded("import arriero; arriero.PackedDataset") & {"torch", "numba", "pyarrow"} == set()
    assert "torch" not in loaded("import arriero; arriero.extract_text, arriero.signals, arriero.run_data")


def test_a_configuration_is_what_the_command_line_would_make(tmp_path: Path) -> None:
    config = arriero.load_config(
        "train", "model=debug", "model.n_layers=3", "data.path=a", "run.dir=runs/a=b", "train.steps=7"
    )
    assert isinstance(config, arriero.TrainRun)
    assert (config.model.name, config.model.n_layers, config.train.steps) == ("debug", 3, 7)
    assert config.run.dir == "runs/a=b"
    with pytest.raises(arriero.ConfigError, match=r"unknown key `train.stepps`.*train.steps"):
        arriero.load_config("train", "data.path=a", "run.dir=b", "train.stepps=7")
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/mine.yaml").write_text("name: mine\nextract: none\n")
    data = arriero.load_config("data", "recipe=mine", "input=a", "output=b", config_dir=tmp_path)
    assert isinstance(data, arriero.DataRun)
    assert data.recipe.name == "mine"
    with pytest.raises(arriero.ConfigError, match="expected `data` or `train`"):
        arriero.load_config("trian")  # type: ignore[call-overload]


def test_a_model_preset_takes_changes_that_fit_it() -> None:
    assert arriero.model_config("debug", n_layers=1).n_layers == 1
    with pytest.raises(arriero.ConfigError, match=r"model `debgu` is unknown.*debug"):
        arriero.model_config("debgu")
    with pytest.raises(arriero.ConfigError, match=r"unknown key `model.layers`"):
        arriero.model_config("debug", layers=1)


def test_text_is_extracted_from_pages_and_articles() -> None:
    page = f"<html><body><nav><a href=/>Home</a></nav><article><p>{ARTICLE}é</p></article></body></html>"
    expected = f"{ARTICLE}é"
    assert arriero.extract_text(page) == expected
    latin = page.replace("<html>", "<html><meta charset=iso-8859-1>").encode("latin-1")
    assert arriero.extract_text(latin) == expected
    # Text is text: what it declares is how it was once encoded.
    assert arriero.extract_text(latin.decode("latin-1")) == expected
    assert arriero.extract_text("'''Bold''' [[a|link]]", "wikitext") == "Bold link"
    paper = "\\documentclass{article}\\begin{document}\\section{One}" + ARTICLE + "\\end{document}"
    assert ARTICLE.strip() in arriero.extract_text(paper, "latex")
    assert arriero.extract_text("") == ""


def test_signals_are_a_table_with_a_row_for_each_text() -> None:
    table = arriero.signals(["The cat sat on the mat, and that was it.", "word " * 60], ["en", None])
    assert table["gopher.n_words"].to_pylist() == [10, 60]
    assert table["gopher.top_2_gram"][1].as_py() > table["gopher.top_2_gram"][0].as_py()
    assert arriero.signals(iter([])).schema == table.schema
    with pytest.raises(ValueError, match="1 languages for 2 texts"):
        arriero.signals(["a", "b"], ["en"])


def test_a_folder_of_text_becomes_a_packed_dataset(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for n, text in enumerate(documents()):
        (tmp_path / f"notes/{n:03d}.txt").write_text(text)
    words = ["recipe=text", f"input={tmp_path / 'notes'}", f"output={tmp_path / 'out'}", "executor.workers=1"]
    small = ["tokenizer=small", "tokenizer.vocab_size=320", "pack.sequence_length=64"]
    folder = arriero.run_data(arriero.load_config("data", *words, *small))
    dataset = arriero.PackedDataset(folder / "packed")
    stream = next(iter(dataset.streams("train")))
    tokenizer = arriero.load_tokenizer(dataset.tokenizer_path)
    assert tokenizer.decode(dataset.read(stream, 0).tokens.tolist())
    with pytest.raises(arriero.ConfigError, match="no input"):
        arriero.run_data(arriero.load_config("data", f"output={tmp_path / 'none'}"))


def test_a_packed_dataset_is_read(toy_packed: Path) -> None:
    dataset = arriero.PackedDataset(toy_packed)
    sequence = dataset.read("train/json", 0)
    assert sequence.tokens.shape == (dataset.sequence_length,)
    with pytest.raises(arriero.PackedError, match="no stream 'train/jsn'"):
        dataset.read("train/jsn", 0)


def test_a_new_model_writes(toy_packed: Path) -> None:
    tokenizer = arriero.load_tokenizer(toy_packed / "tokenizer")
    model = arriero.Llama(arriero.model_config("debug"), tokenizer.size).eval()
    arriero.init_weights([model], seed=1)
    texts = arriero.generate(model, tokenizer, ["The", "A"], max_tokens=5, n=2)
    assert len(texts) == 4
    assert arriero.generate(model, tokenizer, "A", max_tokens=5, n=2) == texts[2:]
    with pytest.raises(arriero.ConfigError, match=r"top_p"):
        arriero.generate(model, tokenizer, "The", top_p=2)


def test_a_run_is_trained_continued_and_read_back(toy_packed: Path, tmp_path: Path) -> None:
    words = overrides(toy_packed, tmp_path / "run", "checkpoint.every=2")
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    for steps in (2, 4):  # twice in one process
        assert arriero.train(arriero.load_config("train", *words, f"train.steps={steps}"))
    assert handlers == [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    first, last = (arriero.load_checkpoint(tmp_path / "run", step) for step in (2, None))
    assert (first.step, last.step, last.config.train.steps) == (2, 4, 4)
    weights = [run.model.tok_embeddings.weight.detach() for run in (first, last)]
    assert not torch.equal(*weights)
    ids = last.tokenizer.encode("import json")
    positions = torch.arange(len(ids))[None]
    logits = last.model(torch.tensor([ids]), positions, torch.tensor([[0, len(ids)]], dtype=torch.int32))
    greedy = arriero.generate(last.model, last.tokenizer, "import json", max_tokens=1, temperature=0)
    assert greedy == [last.tokenizer.decode([int(np.argmax(logits[0, -1].detach().numpy()))])]
    with pytest.raises(arriero.ConfigError, match="no checkpoint of step 3"):
        arriero.load_checkpoint(tmp_path / "run", 3)


def test_an_error_of_training_is_raised_and_not_printed(
    toy_packed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = overrides(toy_packed, tmp_path / "run", "data.weights.jsn=1", "train.steps=2")
    with pytest.raises(ValueError, match="jsn"):
        arriero.train(arriero.load_config("train", *words))
    assert "error:" not in capfd.readouterr().err
