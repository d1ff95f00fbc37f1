from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import orjson
import psutil
import pyarrow as pa
import pytest
from toyrun import PATIENCE

from configs.schema.pipeline import ClassifierConfig, LabelConfig, QualityConfig
from data_pipeline.annotate import quality as annotate_quality
from data_pipeline.quality import label, prompt, rater, server

PROSE = (
    "The committee explains how the bridge was built, because the river floods every spring. For example, the piers"
    " stand on rock, which means that they do not move. However, engineers measure them each year in order to be sure."
)
POOR = "Click here to subscribe. Log in. Sign up. Cookies. Add to cart. "


def documents(count: int = 40) -> list[tuple[str, str]]:
    """Half of them explain, half of them sell."""
    rows = []
    for n in range(count):
        words = PROSE.split() if n % 2 else POOR.split()
        random.Random(n).shuffle(words)
        rows.append((f"{n:032x}", (PROSE + " " if n % 2 else POOR * 3) + " ".join(words)))
    return rows


def labels(path: Path) -> list[dict]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_the_loop_labels_trains_and_scores(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    counts = label.label(documents(), LabelConfig(base_url="local", documents=30), 0, path)
    assert counts == {"chosen": 30, "labelled": 30, "reused": 0, "failed": 0}
    assert {row["model"] for row in labels(path)} == {"heuristic-rater"}
    config = QualityConfig(classifier=ClassifierConfig(buckets=2000))
    trained = label.train(path, config, tmp_path / "q.bin", 0)
    assert sum(trained["labels"].values()) == 30
    table = pa.table({"id": ["a", "b", "c"], "text": [PROSE, POOR * 3, ""]})
    scored = annotate_quality.annotate(table, config.classifier, tmp_path / "q.bin").to_pydict()
    assert scored["score"][0] > 0.65 > 0.35 > scored["score"][1]
    assert scored["score"][2] is None


def test_the_sample_depends_on_seed_and_ids_alone() -> None:
    rows = documents(100)
    chosen = label.choose(rows, 10, seed=0)
    assert label.choose(random.Random(1).sample(rows, 100), 10, seed=0) == chosen
    assert label.choose(rows, 10, seed=1) != chosen
    assert label.choose(rows, 5, seed=0) == chosen[:5]
    assert label.choose([("x", " \n")], 5, seed=0) == []


def test_an_interrupted_run_continues_where_it_was(tmp_path: Path) -> None:
    asked: Counter[str] = Counter()
    lock = threading.Lock()
    broken = threading.Event()

    def generate(messages: list[dict[str, str]]) -> str:
        with lock:
            asked[messages[-1]["content"]] += 1
            if len(asked) > 15:
                broken.set()
        if broken.is_set() and len(asked) <= 40 and resume is False:
            raise RuntimeError("out of memory")
        return server.rate(messages)

    resume = False
    path = tmp_path / "labels.jsonl"
    with server.serve(generate, "m") as address:
        config = LabelConfig(base_url=address, model="m", documents=40, retries=1, concurrency=2)
        with pytest.raises(label.LabelError, match="20 documents in a row"):
            label.label(documents(), config, 0, path)
        assert not path.exists()
        with path.with_name("labels.jsonl.partial").open("ab") as file:
            file.write(b'{"key": "cut sho')  # as a kill leaves it
        resume = True
        first = set(asked)
        counts = label.label(documents(), config, 0, path)
    assert counts["labelled"] == 40
    assert counts["reused"] >= 10
    assert sum(1 for text in first if asked[text] == 1) >= 10
    undisturbed = tmp_path / "undisturbed.jsonl"
    with server.serve(server.rate, "m") as address:
        label.label(documents(), LabelConfig(base_url=address, model="m", documents=40), 0, undisturbed)
    assert undisturbed.read_bytes() == path.read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_failures_are_set_aside_and_asked_again(tmp_path: Path) -> None:
    stubborn = {text for _, text in documents()[:6:2]}
    helpful = False

    def generate(messages: list[dict[str, str]]) -> str:
        if not helpful and prompt.document_of(messages[-1]["content"]) in stubborn:
            return "I would rather not say."
        return server.rate(messages)

    path = tmp_path / "labels.jsonl"
    with server.serve(generate, "m") as address:
        config = LabelConfig(base_url=address, model="m", documents=40, retries=1)
        counts = label.label(documents(), config, 0, path)
        assert (counts["labelled"], counts["failed"]) == (37, 3)
        failed = labels(path.with_name("labels.jsonl.failed.jsonl"))
        assert all("no score in the answer: 'I would rather not say.'" in row["error"] for row in failed)
        helpful = True
        counts = label.label(documents(), config, 0, path)
    assert counts == {"chosen": 40, "labelled": 40, "reused": 37, "failed": 0}
    assert path.with_name("labels.jsonl.failed.jsonl").read_bytes() == b""


def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    tries: Counter[str] = Counter()

    def generate(messages: list[dict[str, str]]) -> str:
        tries[messages[-1]["content"]] += 1
        if tries[messages[-1]["content"]] == 1:
            raise RuntimeError("busy")
        return server.rate(messages)

    with server.serve(generate, "m") as address:
        config = LabelConfig(base_url=address, model="m", documents=4, retries=2)
        counts = label.label(documents(), config, 0, tmp_path / "l.jsonl")
    assert counts["labelled"] == 4
    assert set(tries.values()) == {2}


def test_a_server_that_is_wrong_is_named_before_the_first_document(tmp_path: Path) -> None:
    with server.serve(server.rate, "m") as address:
        config = LabelConfig(base_url=address, model="llama", documents=4)
        with pytest.raises(label.LabelError, match="does not serve the model 'llama'; it serves: m"):
            label.label(documents(), config, 0, tmp_path / "l.jsonl")
    with pytest.raises(label.LabelError, match=r"no answer from .* is the server"):
        label.label(documents(), config, 0, tmp_path / "l.jsonl")
    with pytest.raises(ValueError, match="base_url` is null"):
        label.label(documents(), LabelConfig(), 0, tmp_path / "l.jsonl")


def test_one_sided_labels_are_an_error(tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": "words here", "score": 4} for n in range(5)]
    (tmp_path / "l.jsonl").write_bytes(b"\n".join(orjson.dumps(r) for r in rows))
    with pytest.raises(ValueError, match=r"5 of 5 labels reach `quality.good` = 3"):
        label.train(tmp_path / "l.jsonl", QualityConfig(), tmp_path / "q.bin", 0)


def test_the_server_speaks_the_protocol() -> None:
    with server.serve() as address, httpx.Client(base_url=address) as client:
        assert client.get("/models").json()["data"][0]["id"] == "heuristic-rater"
        body = {
            "model": "heuristic-rater",
            "messages": prompt.messages(PROSE * 3, 5000, prompt.rubric("educational")),
        }
        answer = client.post("/chat/completions", json=body).json()
        choice = answer["choices"][0]
        assert (choice["message"]["role"], choice["finish_reason"]) == ("assistant", "stop")
        assert prompt.parse(choice["message"]["content"])[0] == rater.rate(PROSE * 3)[0] >= 3
        for bad, status in (
            ({"model": "gpt", "messages": body["messages"]}, 404),
            ({"messages": []}, 400),
            ({"messages": [{"role": "user"}]}, 400),
            ({**body, "stream": True}, 400),
        ):
            response = client.post("/chat/completions", json=bad)
            assert response.status_code == status
            assert response.json()["error"]["message"]
        assert client.post("/chat/completions", content=b"{").status_code == 400
        assert client.get("/nothing").status_code == 404


def test_the_server_ends_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import signal; from data_pipeline.quality import server\n"
        "with server.child() as address:\n    print(address, flush=True); signal.pause()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    address = parent.stdout.readline().strip()
    assert httpx.get(f"{address}/models", timeout=PATIENCE).status_code == 200
    (served_by,) = psutil.Process(parent.pid).children()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + PATIENCE
    while served_by.is_running() and served_by.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.02)


def test_the_rater_tells_prose_from_boilerplate() -> None:
    assert rater.rate("too short")[0] == 0
    assert rater.rate(PROSE * 2)[0] > rater.rate(POOR * 6)[0]
