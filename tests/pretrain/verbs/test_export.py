"""Export to and import from Hugging Face's format, against transformers itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from example_run import SHAPE, TEXTS, VARIANTS, random_weights, write_run, write_tokenizer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toyrun import ROOT

from configs.edge import ConfigError
from pretrain import export as export_verb
from pretrain import import_hf
from pretrain.checkpoint import open_checkpoint, step_path
from pretrain.export import export
from pretrain.generate import Sampling, generate, load
from pretrain.hf import (
    from_hf_config,
    hf_name,
    padded_vocab_size,
    parameter_shapes,
    to_hf_config,
    vocab_multiple,
)
from pretrain.import_hf import HfWeights, import_model
from pretrain.model.decode import Cache, decode
from pretrain.weights import from_newest, read_config, read_tokenizer, read_weights

transformers = pytest.importorskip(
    "transformers", reason="transformers is the reference (pip install 'arriero[hf]')"
)
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def exported(tmp_path: Path, model=SHAPE, dtype: str = "fp32", weights=None, **options) -> Path:
    run = write_run(tmp_path / "run", model, weights=weights)
    export(run, tmp_path / "hf", model, read_tokenizer(run), None, dtype, **options)
    return tmp_path / "hf"


def reference(folder: Path, dtype: torch.dtype):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="sdpa"
    ).eval()


def exact_norm(norm, hidden_states: torch.Tensor) -> torch.Tensor:
    """transformers' RMSNorm without its cast to fp32, which would hide everything below 1e-7 in fp64."""
    variance = hidden_states.pow(2).mean(-1, keepdim=True)
    return norm.weight * (hidden_states * torch.rsqrt(variance + norm.variance_epsilon))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("dtype", "bound"), [("fp32", 1e-4), ("fp64", 1e-9)])
def test_transformers_gives_the_same_logits(
    tmp_path: Path, variant: str, dtype: str, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = VARIANTS[variant]
    if dtype == "fp64":
        monkeypatch.setattr("transformers.models.llama.modeling_llama.LlamaRMSNorm.forward", exact_norm)
    weights = random_weights(model, torch.float64 if dtype == "fp64" else torch.float32)
    theirs = reference(
        exported(tmp_path, model, dtype, weights),
        getattr(torch, {"fp32": "float32", "fp64": "float64"}[dtype]),
    )
    tokens = torch.randint(0, 320, (2, 100), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(tokens).logits
    ours = from_newest(tmp_path / "run", None, lambda c: load(c, model, dtype, torch.device("cpu")))
    positions = torch.arange(100).expand(2, 100)
    with torch.no_grad():
        found = ours(tokens, positions, torch.tensor([[0, 100]] * 2, dtype=torch.int32))
    assert (found - expected).abs().max() < bound
    assert expected.std() > 0.5, "the logits must mean something for the bound to"
    cached = decode(ours, tokens, Cache.empty(ours, 2, 100))
    assert (cached - expected[:, -1]).abs().max() < bound


def test_greedy_generation_is_the_same_after_export(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    theirs = reference(folder, torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours = from_newest(tmp_path / "run", None, lambda c: load(c, SHAPE, "fp32", torch.device("cpu")))
    own = read_tokenizer(tmp_path / "run")
    for text in TEXTS[:3]:
        prompt = own.encode(text)
        assert tokenizer(text)["input_ids"] == prompt
        inputs = torch.tensor([prompt])
        out = theirs.generate(
            inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=40, do_sample=False, pad_token_id=0
        )
        expected = out[0, len(prompt) :].tolist()
        [(_, sample)] = generate(ours, [prompt], own.stop, 40, Sampling(0.0, 0, 1.0, 0))
        assert sample.ids == [i for i in expected if i not in own.stop]


def test_an_export_begins_texts_as_training_did(tmp_path: Path) -> None:
    for bos in (None, False):
        root = tmp_path / str(bos)
        write_tokenizer(root / "run/tokenizer", bos=bos)
        folder, own = exported(root), read_tokenizer(root / "run")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        assert bool(own.begin) == (bos is None)
        for text in TEXTS[:3]:
            assert tokenizer(text)["input_ids"] == own.encode(text)


@pytest.mark.parametrize("variant", VARIANTS)
def test_import_gives_back_the_same_weights_and_model(tmp_path: Path, variant: str) -> None:
    model, weights = VARIANTS[variant], random_weights(VARIANTS[variant])
    folder = exported(tmp_path, model, weights=weights, max_shard_bytes=40_000)
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert import_hf.main([f"input={folder}", f"run.dir={tmp_path / 'again'}"]) == 0
    config = read_config(tmp_path / "again")
    assert {**vars(config.model), "name": "tiny"} == vars(model)
    back = read_weights(open_checkpoint(step_path(tmp_path / "again", 0)), config.model, torch.float32, "cpu")
    assert back.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(back[name], tensor), name
    # And out once more: the same bytes.
    export(
        tmp_path / "again",
        tmp_path / "hf2",
        config.model,
        read_tokenizer(tmp_path / "again"),
        None,
        "fp32",
        40_000,
    )
    for file in folder.iterdir():
        assert (tmp_path / "hf2" / file.name).read_bytes() == file.read_bytes(), file.name


def test_import_keeps_bf16_and_reads_what_transformers_writes(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        rope_parameters=LLAMA3 | {"rope_theta": 500_000.0},
    )
    theirs = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    theirs.save_pretrained(tmp_path / "hf", max_shard_size="20KB")
    assert (tmp_path / "hf/model.safetensors.index.json").exists()
    write_tokenizer(tmp_path / "tokenizer")
    for file in (tmp_path / "tokenizer").iterdir():
        file.rename(tmp_path / "hf" / file.name)
    model, vocab_size = import_model(tmp_path / "hf", tmp_path / "run")
    assert (model.tied, model.rope_scaling.factor, vocab_size) == (True, 8.0, 320)
    checkpoint = open_checkpoint(step_path(tmp_path / "run", 0))
    state = theirs.state_dict()
    for name, tensor in read_weights(checkpoint, model, torch.bfloat16, "cpu").items():
        assert torch.equal(tensor, state[hf_name(name)]), name
    assert {row["dtype"] for rows in checkpoint.chunks.values() for row in rows} == {"bfloat16"}


def test_weights_can_be_filled_into_parameters_of_another_precision(tmp_path: Path) -> None:
    weights = random_weights(SHAPE)
    folder = exported(tmp_path, weights=weights)
    parameters = {
        name: torch.zeros(shape, dtype=torch.float64) for name, shape in parameter_shapes(SHAPE, 320).items()
    }
    HfWeights(folder).fill(parameters)
    for name, tensor in weights.items():
        assert torch.equal(parameters[name], tensor.double()), name
    with pytest.raises(ConfigError, match="another model"):
        HfWeights(folder).fill({"norm.weight": torch.zeros(3)})


def test_config_is_read_by_transformers_4_and_5() -> None:
    model = VARIANTS["scaled"]
    config = to_hf_config(model, 320, 308, [309, 317], "bf16")
    # transformers 5
    assert transformers.LlamaConfig(**config).rope_parameters["rope_theta"] == 500_000.0
    # transformers 4 knows rope_theta and rope_scaling, and ignores rope_parameters
    old = {k: v for k, v in config.items() if k != "rope_parameters"}
    assert from_hf_config(old, "tiny", "config.json") == (model, 320)
    new = {k: v for k, v in config.items() if k not in ("rope_theta", "rope_scaling")}
    assert from_hf_config(new, "tiny", "config.json") == (model, 320)
    assert config["eos_token_id"] == [309, 317]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mistral", "architectures": ["MistralForCausalLM"]}, "MistralForCausalLM"),
        ({"attention_bias": True}, "attention_bias"),
        ({"head_dim": 16}, "head_dim"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}, "rope_parameters": None}, "yarn"),
        ({"num_hidden_layers": 3}, "lacks 9 tensors"),
        ({"intermediate_size": 96}, "shape"),
        ({"num_hidden_layers": 1}, "no place for"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_attention_heads": 0}, "num_attention_heads must be an integer of at least 1, but it is 0"),
        ({"num_key_value_heads": 0}, "num_key_value_heads must be"),
        ({"num_attention_heads": 5}, "multiple of num_attention_heads"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        (
            {
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 500_000.0,
                    "partial_rotary_factor": 0.25,
                }
            },
            "partial_rotary_factor is 0.25",
        ),
        ({"rope_theta": 10_000.0}, "rope_theta is 10000.0 and rope_parameters.rope_theta 500000.0"),
        (
            {
                "rope_scaling": LLAMA3,
            },
            "contradict each other",
        ),
        ({"num_key_value_heads": 4}, "n_kv_heads` must divide"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps must be a number or null, but it is '1e-5'"),
        ({"rms_norm_eps": 0}, "norm_eps` must be a number above 0"),
        ({"max_position_embeddings": "4096"}, "max_position_embeddings must be an integer"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings must be true or false"),
        ({"is_causal": False}, "is_causal is False"),
        ({"rope_theta": 0, "rope_parameters": None}, "rope_theta` must be a number above 1"),
        ({"rope_parameters": ["default"]}, "rope_parameters must be a mapping"),
        ({"rope_scaling": {"factor": 2.0}, "rope_parameters": None}, "factor 2.0, but its type is 'default'"),
        (
            {"rope_scaling": {"rope_type": "llama3", "type": "linear"}, "rope_parameters": None},
            "rope_type is 'llama3' and type 'linear'",
        ),
        ({"rope_scaling": LLAMA3 | {"factor": None}, "rope_parameters": None}, "needs factor"),
        ({"rope_scaling": LLAMA3 | {"factor": "8"}, "rope_parameters": None}, "factor of the rope scaling"),
        (
            {"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}, "rope_parameters": None},
            "low_freq_factor must be below",
        ),
        ({"tie_word_embeddings": True}, "tie_word_embeddings true, but `lm_head.weight` differs"),
    ],
)
def test_what_cannot_be_imported_is_refused_by_name(
    tmp_path: Path, change: dict, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exported(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ConfigError, match=message):
        import_model(folder, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_truncated_weight_file_is_named(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"model\.safetensors is not a whole"):
        import_model(folder, tmp_path / "again")


def test_null_stands_for_what_transformers_takes() -> None:
    config = to_hf_config(SHAPE, 320, 308, [309], "bf16")
    nulls = dict.fromkeys(
        ("rms_norm_eps", "max_position_embeddings", "initializer_range", "tie_word_embeddings")
    )
    theirs = transformers.LlamaConfig()
    ours, _ = from_hf_config(config | nulls, "tiny", "config.json")
    assert (ours.norm_eps, ours.max_sequence_length, ours.init_std, ours.tied) == (
        theirs.rms_norm_eps,
        theirs.max_position_embeddings,
        theirs.initializer_range,
        theirs.tie_word_embeddings,
    )


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 12\n"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", b'{"model":', r"tokenizer\.json is no tokenizer"),
        ("tokenizer.json", POINTER, "git lfs pull"),
        ("tokenizer_config.json", b"{", r"tokenizer_config\.json is not JSON"),
        ("config.json", POINTER, "git lfs pull"),
        ("model.safetensors", POINTER, "git lfs pull"),
    ],
)
def test_a_damaged_file_of_a_model_is_named(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    folder = exported(tmp_path)
    (folder / file).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        import_model(folder, tmp_path / "again")


def test_ids_of_a_tokenizer_count_to_the_highest(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 400  # with a gap: as many tokens as before
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"ids up to 400, but config\.json an embedding of 320 rows"):
        import_model(folder, tmp_path / "again")
    model = replace(SHAPE, vocab_multiple=128)
    rows = {n: torch.zeros(s) for n, s in parameter_shapes(model, 512).items()}
    run = write_run(tmp_path / "wide", model, weights=rows)
    export(run, tmp_path / "wide-hf", model, read_tokenizer(run), None, "fp32")
    (tmp_path / "wide-hf/tokenizer.json").write_text(json.dumps(content))
    import_model(tmp_path / "wide-hf", tmp_path / "wide-again")
    assert read_tokenizer(tmp_path / "wide-again").size == 401


@pytest.mark.parametrize("name", [3, None, ["a"], "../hf/model.safetensors", "/tmp/model.safetensors", ""])
def test_an_index_that_names_no_file_of_its_folder_is_refused(tmp_path: Path, name: object) -> None:
    folder = exported(tmp_path, max_shard_bytes=40_000)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.norm.weight"] = name
    index.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"`weight_map` gives .* as the file of `model\.norm\.weight`"):
        import_model(folder, tmp_path / "again")


def test_a_tensor_in_two_files_must_be_one(tmp_path: Path) -> None:
    folder = exported(tmp_path, max_shard_bytes=40_000)
    first, *_, last = sorted(folder.glob("*.safetensors"))
    tensors = load_file(first)
    name, tensor = next(iter(tensors.items()))
    save_file(load_file(last) | {name: tensor.clone()}, last)
    import_model(folder, tmp_path / "same")
    save_file(load_file(last) | {name: tensor + 1}, last)
    with pytest.raises(
        ConfigError, match=f"`{name}` lies in {first.name} and, with other values, in {last.name}"
    ):
        import_model(folder, tmp_path / "again")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    weights = random_weights(SHAPE)
    weights["layers.1.feed_forward.w1.weight"][3, 5] = value
    folder = exported(tmp_path, weights=weights)
    with pytest.raises(ConfigError, match=r"`model.layers.1.mlp.gate_proj.weight` holds NaN or infinite"):
        import_model(folder, tmp_path / "again")
    name = "layers.1.feed_forward.w1.weight"
    with pytest.raises(ConfigError, match="holds NaN or infinite"):
        HfWeights(folder).fill({name: torch.zeros_like(weights[name])})


def test_export_refuses_a_folder_that_holds_files(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    run = write_run(tmp_path / "run")
    assert export_verb.main([f"run.dir={run}", f"output={tmp_path / 'hf'}", "dtype=bf16"]) == 0, (
        "an empty one is fine"
    )
    with safe_open(tmp_path / "hf/model.safetensors", "pt") as file:
        assert file.get_tensor("model.norm.weight").dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="not an empty folder"):
        export_verb.main([f"run.dir={run}", f"output={tmp_path / 'hf'}"])


def test_a_broken_newest_checkpoint_is_passed_over_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", step=7)
    write_run(run, weights=random_weights(SHAPE, seed=1), step=9)
    [data] = step_path(run, 9).glob("*.distcp")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    step, _ = export(run, tmp_path / "hf", SHAPE, read_tokenizer(run), None, "fp32")
    assert step == 7 and "step-00000009 is passed over" in capsys.readouterr().out
    stored = load_file(tmp_path / "hf/model.safetensors")
    assert torch.equal(stored["lm_head.weight"], random_weights(SHAPE)["output.weight"])
    with pytest.raises(OSError, match="damaged"):
        export(run, tmp_path / "hf9", SHAPE, read_tokenizer(run), 9, "fp32")
    assert [p.name for p in tmp_path.iterdir() if "hf9" in p.name] == []


def test_a_tied_folder_may_hold_a_copy_of_the_head(tmp_path: Path) -> None:
    folder = exported(tmp_path, VARIANTS["tied"])
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert import_model(folder, tmp_path / "again")[0].tied


def test_the_verbs_explain_themselves(tmp_path: Path) -> None:
    for module in ("pretrain.export", "pretrain.import_hf", "pretrain.generate", "pretrain.evaluate"):
        text = subprocess.run(
            [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
        )
        assert text.stdout.count("arriero ") >= 3 and "run.dir" in text.stdout


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_quantised_weights_without_their_scale_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = exported(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=rf"`{name}` is stored as [FI]8.*, a quantised number"):
        import_model(folder, tmp_path / "again")


def test_a_padded_vocabulary_keeps_its_rows(tmp_path: Path) -> None:
    weights = random_weights(SHAPE)
    for name in ("tok_embeddings.weight", "output.weight"):
        weights[name] = torch.cat((weights[name], torch.zeros(64, SHAPE.dim)))
    run = write_run(tmp_path / "run", replace(SHAPE, vocab_multiple=128), weights=weights)
    export(run, tmp_path / "hf", SHAPE, read_tokenizer(run), None, "fp32")
    assert json.loads((tmp_path / "hf/config.json").read_text())["vocab_size"] == 384
    model, rows = import_model(tmp_path / "hf", tmp_path / "again")
    assert (model.vocab_multiple, rows) == (128, 384)
    for rows, tokens in ((4160, 4096), (32_064, 32_000), (4096, 4096), (4097, 4096), (50_304, 50_257)):
        padded = replace(SHAPE, vocab_multiple=vocab_multiple(rows, tokens))
        assert padded_vocab_size(padded, tokens) == rows


def test_a_tokenizer_of_more_tokens_than_the_embedding_is_refused(tmp_path: Path) -> None:
    small = replace(SHAPE, vocab_multiple=1)
    weights = random_weights(small)
    for name in ("tok_embeddings.weight", "output.weight"):
        weights[name] = weights[name][:300].clone()
    run = write_run(tmp_path / "run", small, weights=weights)
    export(run, tmp_path / "hf", small, read_tokenizer(run), None, "fp32")
    with pytest.raises(
        ConfigError, match=r"the tokenizer has ids up to 319, but config.json an embedding of 300 rows"
    ):
        import_model(tmp_path / "hf", tmp_path / "again")


def test_an_export_says_the_length_that_was_trained(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", state={"sequence_length": 128})
    export(run, tmp_path / "hf", SHAPE, read_tokenizer(run), None, "fp32")
    assert json.loads((tmp_path / "hf/config.json").read_text())["max_position_embeddings"] == 128
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert tokenizer.model_max_length == 128


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("verb", ["export", "average", "import"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, verb: str) -> None:
    run, disk = write_run(tmp_path / "run", step=7), tmp_path / "disk"
    write_run(run, weights=random_weights(SHAPE, seed=1), step=9)
    export(run, tmp_path / "hf", SHAPE, read_tokenizer(run), None, "fp32")
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if (made := subprocess.run(mount, capture_output=True, text=True)).returncode:
        pytest.skip(f"mounting failed: {made.stderr.strip()}")
    words = {
        "export": [f"run.dir={run}", f"output={disk / 'out'}"],
        "average": [f"run.dir={run}", "last=2", f"output={disk / 'out'}"],
        "import": [f"input={tmp_path / 'hf'}", f"run.dir={disk / 'out'}"],
    }[verb]
    try:
        command = [sys.executable, "-m", "launch.cli", verb, *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 1, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.strip()]
        assert line.startswith("error: ") and str(disk) in line
        assert "no space left on the disk, where" in line and "MiB are free; free some" in line
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
