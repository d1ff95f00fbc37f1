"""Sampling: the cache against the whole forward pass, batches against prompts alone, and the draws themselves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from example_run import SHAPE, TEXTS, VARIANTS, random_weights, write_run, write_tokenizer

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import GenerateRun, RunConfig
from pretrain import generate as verb
from pretrain.generate import Sampling, choose, generate, load, read_prompts
from pretrain.model.decode import Cache, decode
from pretrain.weights import from_newest, read_tokenizer

SAMPLED = Sampling(temperature=0.9, top_k=40, top_p=0.95, seed=3)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("generate") / "run")


def model_of(run_dir: Path, dtype: str = "fp64", shape=SHAPE):
    return from_newest(run_dir, None, lambda c: load(c, shape, dtype, torch.device("cpu")))


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens_fed_in_pieces_give_the_logits_of_the_whole(tmp_path: Path, variant: str) -> None:
    model = model_of(write_run(tmp_path / "run", VARIANTS[variant]), shape=VARIANTS[variant])
    tokens = torch.randint(0, 320, (1, 60), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model(tokens, torch.arange(60)[None], torch.tensor([[0, 60]], dtype=torch.int32))[0]
    cache = Cache.empty(model, 1, 60)
    at = 0
    for size in (17, 1, 1, 20, 1, 20):
        logits = decode(model, tokens[:, at : at + size], cache)
        at += size
        assert (logits[0] - whole[at - 1]).abs().max() < 1e-10
    assert cache.lengths.tolist() == [60]


def test_prompts_of_different_lengths_give_the_same_text_together_and_alone(run_dir: Path) -> None:
    model, tokenizer = model_of(run_dir), read_tokenizer(run_dir)
    prompts = [tokenizer.encode(text) for text in [*TEXTS, "", "The", TEXTS[0]]]
    assert len({len(p) for p in prompts}) > 4
    together = list(generate(model, prompts, tokenizer.stop, 30, SAMPLED, n=2))
    assert [index for index, _ in together] == [i for i in range(len(prompts)) for _ in range(2)]
    for index, prompt in enumerate(prompts):
        alone = [sample for _, sample in generate(model, [prompt], tokenizer.stop, 30, SAMPLED, n=2)]
        assert [s for i, s in together if i == index] == alone
    first, second = (s.ids for i, s in together if i == 0)
    assert first != second, "samples of one prompt differ"
    other = next(generate(model, prompts[:1], tokenizer.stop, 30, Sampling(0.9, 40, 0.95, seed=4)))
    assert other[1].ids != first, "another seed gives another text"


def test_generation_stops_on_end_of_text_and_end_of_turn(run_dir: Path) -> None:
    model, tokenizer = model_of(run_dir), read_tokenizer(run_dir)
    ids = [tokenizer.tokenizer.token_to_id(t) for t in ("<|end_of_text|>", "<|eot_id|>")]
    assert list(tokenizer.stop) == ids
    prompt = tokenizer.encode("The road")
    greedy = Sampling(0.0, 0, 1.0, 0)
    [(_, free)] = generate(model, [prompt], [], 12, greedy)
    assert free.finish == "length" and len(free.ids) == 12
    stop = free.ids[5]
    [(_, cut)] = generate(model, [prompt], [stop], 12, greedy)
    assert cut.finish == "stop" and cut.ids == free.ids[: free.ids.index(stop)]


def test_text_ends_where_the_context_does(run_dir: Path) -> None:
    model = model_of(run_dir)
    prompt = [1] * (SHAPE.max_sequence_length - 3)
    [(_, sample)] = generate(model, [prompt], [], 50, Sampling(0.0, 0, 1.0, 0))
    assert len(sample.ids) == 3 and sample.finish == "length"
    with pytest.raises(ConfigError, match="prompt 1 has 512 tokens"):
        list(generate(model, [[1] * 512], [], 5, SAMPLED))


def test_draws_follow_the_probabilities() -> None:
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    draws = np.random.Generator(np.random.Philox(1))

    def shares(**how: float) -> np.ndarray:
        sampling = Sampling(**({"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0} | how))  # type: ignore[arg-type]
        chosen = [choose(np.log(probabilities), sampling, draws) for _ in range(4000)]
        return np.bincount(chosen, minlength=4) / 4000

    assert np.abs(shares() - probabilities).max() < 0.03
    assert np.abs(shares(top_k=2) - [0.625, 0.375, 0, 0]).max() < 0.03
    assert np.abs(shares(top_p=0.79) - [0.625, 0.375, 0, 0]).max() < 0.03, "0.5 + 0.3 reach 0.79"
    assert np.abs(shares(top_p=0.81) - np.array([0.5, 0.3, 0.15, 0]) / 0.95).max() < 0.03
    assert shares(top_p=1e-9)[0] == 1
    squared = probabilities**2 / (probabilities**2).sum()
    assert np.abs(shares(temperature=0.5) - squared).max() < 0.03
    assert shares(temperature=0.0)[0] == 1
    with pytest.raises(ValueError, match="not finite"):
        choose(np.array([0.0, np.nan]), Sampling(1.0, 0, 1.0, 0), draws)


def test_the_begin_token_stands_first_once(run_dir: Path) -> None:
    tokenizer = read_tokenizer(run_dir)
    bos = tokenizer.tokenizer.token_to_id("<|begin_of_text|>")
    assert tokenizer.encode("") == [bos]
    assert tokenizer.encode("The").count(bos) == 1
    assert tokenizer.encode("<|begin_of_text|>The") == tokenizer.encode("The")
    assert tokenizer.decode(tokenizer.encode("piñas 🦙")) == "piñas 🦙"


def test_a_tokenizer_that_puts_nothing_before_a_text_gets_no_begin_token(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "run/tokenizer", bos=False)
    run = write_run(tmp_path / "run")
    tokenizer = read_tokenizer(run)
    assert tokenizer.begin == () and tokenizer.bos is not None
    assert tokenizer.encode("The") == tokenizer.tokenizer.encode("The", add_special_tokens=False).ids
    with pytest.raises(ConfigError, match="the prompt is empty"):
        verb.main([f"run.dir={run}", "device=cpu", "max_tokens=2"])
    assert verb.main([f"run.dir={run}", "device=cpu", "max_tokens=2", "prompt=The"]) == 0


def test_prompts_come_from_text_and_jsonl(tmp_path: Path) -> None:
    def prompts(name: str, content: str) -> list[str]:
        (tmp_path / name).write_text(content)
        return read_prompts(config("x", f"prompts={tmp_path / name}"))

    assert prompts("a.txt", "one\ntwo\n\n \nthree\n") == ["one\ntwo", "three"]
    few_shot = "Q: 1\nA: 1\n\nQ: 2\nA:"
    assert prompts("b.jsonl", json.dumps({"prompt": few_shot}) + "\n\n" + json.dumps({"prompt": ""})) == [
        few_shot,
        "",
    ]
    assert prompts("g.jsonl", '\ufeff{"prompt": "a"}\n\ufeff{"prompt": "b"}\n') == ["a", "b"]
    for name, content, message in (
        ("c.jsonl", '{"text": "x"}', "line 1"),
        ("d.jsonl", "{", "not JSON"),
        ("e.txt", "\n\n", "no prompt"),
        (
            "f.jsonl",
            '{"prompt": "a \\ud800"}',
            r"line 1: the prompt holds half of a surrogate pair at character 2",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            prompts(name, content)
    with pytest.raises(ConfigError, match="does not exist"):
        read_prompts(config("x", "prompts=nowhere.txt"))
    with pytest.raises(ConfigError, match="both given"):
        read_prompts(config("x", "prompts=nowhere.txt", "prompt=The"))


def config(run_dir: Path | str, *overrides: str) -> GenerateRun:
    return edge.load("generate", GenerateRun, [f"run.dir={run_dir}", *overrides])


def test_the_verb_prints_and_keeps_its_samples(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / "samples.jsonl").unlink(missing_ok=True)
    words = [f"run.dir={run_dir}", "prompt=The road", "max_tokens=8", "n=2", "device=cpu"]
    assert verb.main([*words, f"output={tmp_path / 'out.jsonl'}"]) == 0
    rows = [json.loads(line) for line in (run_dir / "samples.jsonl").read_text().splitlines()]
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == rows
    assert len(rows) == 2 and {r["prompt"] for r in rows} == {"The road"} and {r["step"] for r in rows} == {7}
    printed = capsys.readouterr().out
    assert all(r["prompt"] + r["text"] in printed for r in rows)
    assert verb.main(words) == 0
    again = [json.loads(line) for line in (run_dir / "samples.jsonl").read_text().splitlines()]
    assert [r["text"] for r in again[2:]] == [r["text"] for r in rows], "the same seed gives the same text"


def test_what_means_nothing_is_refused(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("temperature=-1", "top_p=0", "top_p=1.5", "n=0", "max_tokens=0", "top_k=-1"):
        with pytest.raises(ConfigError, match=f"`{word.split('=')[0]}`"):
            verb.run(config(run_dir, word))
    capsys.readouterr()
    with pytest.raises(ConfigError, match=r"no checkpoint of step 3 \(there are: 7\)"):
        verb.run(config(run_dir, "step=3"))
    assert capsys.readouterr() == ("", ""), "nothing is said of the precision before"
    with pytest.raises(ConfigError, match="not a directory"):
        verb.run(config(run_dir / "nowhere"))


def test_lines_of_prompts_end_at_newlines_alone_and_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    prompts = ["one\u2028still one", "two\x85\x0b\u2029", "three"]
    rows = "".join(json.dumps({"prompt": p}, ensure_ascii=False) + "\n" for p in prompts)
    (tmp_path / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    config = GenerateRun(run=RunConfig(dir="run"), prompts=str(tmp_path / "p.jsonl"))
    assert read_prompts(config) == prompts
    (tmp_path / "p.txt").write_bytes("\ufefffirst\u2028line\r\nsecond\r\n\r\nnext".encode())
    config = GenerateRun(run=RunConfig(dir="run"), prompts=str(tmp_path / "p.txt"))
    assert read_prompts(config) == ["first\u2028line\nsecond", "next"]


def test_padding_of_the_vocabulary_is_never_sampled(tmp_path: Path) -> None:
    padded = replace(SHAPE, vocab_multiple=100)
    weights = random_weights(SHAPE)
    for name in ("tok_embeddings.weight", "output.weight"):
        # Rows of padding that would win every draw.
        weights[name] = torch.cat((weights[name], 50 * weights[name][:80]))
    run = write_run(tmp_path / "run", padded, weights=weights)
    tokenizer = read_tokenizer(run)
    model = from_newest(run, None, lambda c: load(c, padded, "fp32", torch.device("cpu"), tokenizer.size))
    for sampling in (Sampling(0.0, 0, 1.0, 0), Sampling(5.0, 0, 1.0, 1)):
        [(_, sample)] = generate(model, [tokenizer.encode("The road")], [], 60, sampling)
        assert len(sample.ids) == 60 and max(sample.ids) < 320
