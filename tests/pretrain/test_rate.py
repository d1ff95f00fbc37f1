"""Labels by a local Hugging Face model: a process of this machine serves it, and its probabilities become the label."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import torch
from toyrun import make_tokenizer

from configs.schema.pipeline import LabelConfig
from data_pipeline.quality import label, prompt

transformers = pytest.importorskip("transformers")
TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights, and a tokenizer with a chat template."""
    folder = tmp_path_factory.mktemp("rate") / "tiny"
    make_tokenizer(folder, 320)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=4096, **shape)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_labels_are_the_expectation_over_the_models_own_probabilities(model: Path, tmp_path: Path) -> None:
    documents = [("0" * 32, "A bridge of stone."), ("1" * 32, "Click here to subscribe.")]
    config = LabelConfig(local_model=str(model), answer="digit", max_characters=200)
    output = tmp_path / "labels.jsonl"
    assert label.ask(documents, config, 0, output)["labelled"] == 2
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    network = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    digits = [tokenizer(str(k), add_special_tokens=False).input_ids[0] for k in range(6)]
    rubric = prompt.rubric("educational")
    for (identifier, text), row in zip(
        documents, map(orjson.loads, output.read_bytes().splitlines()), strict=True
    ):
        asked = prompt.messages(text, 200, rubric, "digit")
        ids = tokenizer(
            "".join(f"{m['content']}\n" for m in asked), return_tensors="pt", add_special_tokens=False
        )
        with torch.inference_mode():
            found = torch.softmax(network(ids.input_ids).logits[0, -1][digits], 0)
        assert (row["id"], row["model"]) == (identifier, "tiny")
        assert row["probabilities"] == pytest.approx(found.tolist(), abs=1e-4)
        assert row["score"] == pytest.approx(float((found * torch.arange(6)).sum()), abs=1e-3)
    assert label.ask(documents, config, 0, output)["reused"] == 2


def test_a_model_that_cannot_rate_is_named(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = LabelConfig(local_model=str(tmp_path / "none"), answer="digit")
    with pytest.raises(ValueError, match="does not exist; expected a folder or a GGUF file"):
        label.ask([("0", "text")], config, 0, tmp_path / "l.jsonl")
    (tmp_path / "empty").mkdir()
    config = LabelConfig(local_model=str(tmp_path / "empty"), answer="digit")
    with pytest.raises(ChildProcessError, match="did not start"):
        label.ask([("0", "text")], config, 0, tmp_path / "l.jsonl")
    assert "cannot be loaded" in capfd.readouterr().err
