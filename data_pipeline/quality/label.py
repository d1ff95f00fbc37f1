"""Quality labels: a sample of documents is shown to a Llama through an OpenAI-compatible server.

The labels then train the classifier that scores every document (`train`), as in FineWeb-Edu (Penedo et al., 2024) and
Llama 3 (Dubey et al., 2024, section 3.1.1).
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import xxhash

from configs.schema.pipeline import LabelConfig, QualityConfig, RubricConfig
from data_pipeline.annotate.quality import GOOD, POOR
from data_pipeline.classify import fasttext
from data_pipeline.packed.files import write_atomically
from data_pipeline.quality import prompt, server

_RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
# Wrong key, address or model: the same for every document. (400 may be one document that is too long.)
_REFUSED_STATUS = frozenset({401, 403, 404})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds
# So many documents in a row set aside means the server is gone or wrong, not the documents.
_GIVE_UP_AFTER = 20
_SAY_SECONDS = 10
_HEAD_BYTES = 2**20


Answer = dict[str, Any]


class LabelError(OSError):
    """The server gives no usable answers."""


def choose(documents: Iterable[tuple[str, str]], count: int, seed: int) -> list[tuple[str, str]]:
    """The `count` documents (id, text) with the smallest hash of (seed, id), in order of that hash.

    Empty texts are left out. Independent of the order of `documents`; only `count` texts are held.
    """

    def keyed() -> Iterator[tuple[int, str, str]]:
        for identifier, text in documents:
            if text.strip():
                yield (
                    xxhash.xxh3_128_intdigest(f"quality label\0{seed}\0{identifier}".encode()),
                    identifier,
                    text,
                )

    return [(identifier, text) for _, identifier, text in heapq.nsmallest(count, keyed())]


def label(
    documents: Iterable[tuple[str, str]], config: LabelConfig, seed: int, output: Path
) -> dict[str, int]:
    """Label a deterministic sample of documents (id, text), see `choose` and `ask`."""
    return ask(choose(documents, config.documents, seed), config, seed, output)


def ask(
    chosen: list[tuple[str, str]],
    config: LabelConfig,
    seed: int,
    output: Path,
    reverse: bool = False,
    say: Callable[[str], None] | None = None,
    answers: Path | None = None,
) -> dict[str, int]:
    """Label documents (id, text); write JSONL rows {id, key, score, reason, model, text} to `output`.

    `base_url: local` starts the built-in server (`quality.server`), and `local_model` one with that model, for the time of
    the call. Labels that `output` already holds for these texts, this model and this prompt are kept, so an interrupted run
    continues. Rows are in the order of `chosen`. Documents without a usable answer go to `<output>.failed.jsonl` with the
    error, and are asked again by the next call. With `answer: digit`, rows also hold `probabilities` of the digits 0 to 5.

    Args:
        reverse: ask by the prompt that names the best level first.
        say: is told now and then how far it is: labels, rate, time left, cost.
        answers: file that keeps every answer for good, of other documents, prompts and models too; null: only `output`'s.

    Returns:
        {"chosen", "labelled", "reused", "failed"}.

    Raises:
        ValueError: neither `config.base_url` nor `config.local_model`, or no API key where one is named.
        LabelError: the server cannot be reached, does not serve the model, refuses the requests, or leaves
            20 documents in a row unanswered.
    """
    if config.base_url is None and config.local_model is None:
        raise ValueError(
            "`quality.label.base_url` is null; give the address of an OpenAI-compatible server or `local`, or a model of "
            "this machine, `quality.label.local_model`"
        )
    if config.local_model is not None and not Path(config.local_model).expanduser().exists():
        raise ValueError(
            f"`label.local_model`: {config.local_model} does not exist; expected a folder or a GGUF file"
        )
    question = _Question(config, prompt.rubric(config.rubric), seed, reverse)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = answers or output.with_name(output.name + ".partial")
    known = _known(output) | _known(partial)
    keys = {i: question.key(text) for i, text in chosen}
    labels = {i: known[key] for i, key in keys.items() if key in known}
    reused = len(labels)
    todo = [(i, text) for i, text in chosen if i not in labels]
    failures: list[dict[str, str]] = []
    if todo:
        headers = _authorization(config)
        with contextlib.ExitStack() as stack:
            address = _address(config, stack)
            client = stack.enter_context(
                httpx.Client(base_url=address.rstrip("/") + "/", timeout=config.timeout, headers=headers)
            )
            file = stack.enter_context(partial.open("ab"))
            file.write(b"\n")  # ends a line that a kill cut short
            progress = _Progress(len(todo), config, say)
            for identifier, answer in _ask_all(client, todo, question):
                if isinstance(answer, str):
                    failures.append({"id": identifier, "error": answer})
                else:
                    progress.spent(answer.pop("usage"))
                    labels[identifier] = answer
                    file.write(orjson.dumps(answer) + b"\n")
                    file.flush()
                progress.done()
            progress.end()
    texts = dict(chosen)
    rows = [
        orjson.dumps({"id": i} | {k: v for k, v in labels[i].items() if k != "id"} | {"text": texts[i]})
        for i, _ in chosen
        if i in labels
    ]
    write_atomically(output, _lines(rows), durable=True)  # the answers of a server cost money
    order = {i: n for n, (i, _) in enumerate(chosen)}
    failures.sort(key=lambda failure: order[failure["id"]])
    failed = output.with_name(output.name + ".failed.jsonl")
    write_atomically(failed, _lines([orjson.dumps(f) for f in failures]))
    if answers is None:
        partial.unlink(missing_ok=True)
    return {"chosen": len(chosen), "labelled": len(rows), "reused": reused, "failed": len(failures)}


def _authorization(config: LabelConfig) -> dict[str, str]:
    if config.api_key_env is None:
        return {}
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise ValueError(
            f"`label.api_key_env`: the environment variable {config.api_key_env} is not set; it must hold the server's key"
        )
    return {"Authorization": f"Bearer {key}"}


def _address(config: LabelConfig, stack: contextlib.ExitStack) -> str:
    """The server's address; one of ours is started, and ends with the stack."""
    if config.local_model is not None:
        model = str(Path(config.local_model).expanduser().absolute())
        return stack.enter_context(server.child("pretrain.rate", "--model", model))
    if config.base_url == "local":
        return stack.enter_context(server.child())
    assert config.base_url is not None
    return config.base_url


@dataclass(frozen=True)
class _Question:
    """What every request has in common."""

    config: LabelConfig
    rubric: RubricConfig
    seed: int
    reverse: bool

    @property
    def model(self) -> str:
        """Name by which the server knows the model."""
        if self.config.local_model is not None:
            return Path(self.config.local_model).name
        return server.MODEL if self.config.base_url == "local" else self.config.model

    def messages(self, text: str) -> list[dict[str, str]]:
        """The prompt."""
        limit, answer = self.config.max_characters, self.config.answer
        return prompt.messages(text, limit, self.rubric, answer, self.reverse)

    def key(self, text: str) -> str:
        """What a label depends on: the prompt with the shown part of the text, and the model."""
        model = self.model if self.config.local_model is None else _identity(self.config.local_model)
        return xxhash.xxh3_128_hexdigest(orjson.dumps([self.messages(text), model]))

    def body(self, text: str, attempt: int) -> dict[str, Any]:
        """A request."""
        digit = self.config.answer == "digit"
        return {
            "model": self.model,
            "messages": self.messages(text),
            # Greedy at first; an unreadable answer would come back unchanged, so later tries are sampled.
            "temperature": 0.0 if attempt == 0 else 0.5,
            "max_tokens": 1 if digit else 200,
            "seed": self.seed + attempt,
            **({"logprobs": True, "top_logprobs": 20} if digit else {}),
        }

    def read(self, response: Any) -> Answer:
        """The label in a server's response.

        Raises:
            UnreadableAnswer: there is no score in it.
            KeyError, IndexError, TypeError, ValueError: it is no chat completion.
        """
        choice = response["choices"][0]
        content = choice["message"]["content"] or ""
        usage = response.get("usage") or {}
        answer: Answer = {"model": self.model, "usage": usage}
        expected = prompt.expectation(choice) if self.config.answer == "digit" else None
        if expected is not None:
            return answer | {"score": expected[0], "reason": "", "probabilities": expected[1]}
        score, reason = prompt.parse(content)
        return answer | {"score": score, "reason": reason}


@functools.cache
def _identity(path: str) -> list[Any]:
    """What tells one local model from another of the same name: its files, their sizes and their heads."""
    root = Path(path).expanduser()
    files = sorted(f for f in root.rglob("*") if f.is_file()) if root.is_dir() else [root]
    found: list[Any] = []
    for file in files:
        with file.open("rb") as opened:
            head = opened.read(_HEAD_BYTES)
        found.append([file.name, file.stat().st_size, xxhash.xxh3_128_hexdigest(head)])
    return found


class _Progress:
    """Says how far a labelling is."""

    def __init__(self, documents: int, config: LabelConfig, say: Callable[[str], None] | None) -> None:
        self.documents, self.config, self.say = documents, config, say
        self.n = self.prompt_tokens = self.answer_tokens = 0
        self.began = self.last = time.monotonic()

    def spent(self, usage: dict[str, Any]) -> None:
        self.prompt_tokens += int(usage.get("prompt_tokens") or 0)
        self.answer_tokens += int(usage.get("completion_tokens") or 0)

    def done(self) -> None:
        self.n += 1
        if self.say is not None and time.monotonic() - self.last >= _SAY_SECONDS:
            self.last = time.monotonic()
            self.end()

    def end(self) -> None:
        if self.say is None:
            return
        rate = self.n / max(time.monotonic() - self.began, 1e-9)
        left = (self.documents - self.n) / max(rate, 1e-9)
        cost = (
            self.prompt_tokens * self.config.input_price + self.answer_tokens * self.config.output_price
        ) / 1e6
        tokens = f"{self.prompt_tokens + self.answer_tokens:,} tokens"
        price = f", cost {cost:.2f}" if cost else ""
        self.say(
            f"{self.n:,} of {self.documents:,} asked, {60 * rate:.0f} a minute, {left:.0f} s left, {tokens}{price}"
        )


class _Pace:
    """Spreads requests of several threads evenly."""

    def __init__(self, per_minute: float | None) -> None:
        self.gap = 60 / per_minute if per_minute else 0.0
        self.lock, self.next = threading.Lock(), 0.0

    def wait(self, stop: threading.Event) -> bool:
        """Wait for this thread's turn; true: stop instead."""
        if not self.gap:
            return stop.is_set()
        with self.lock:
            at = max(self.next, time.monotonic())
            self.next = at + self.gap
        return stop.wait(at - time.monotonic())


def train(labels: Path, config: QualityConfig, output: Path, seed: int) -> dict[str, Any]:
    """Train the quality classifier on labels that `label` wrote: `good` from `config.good` on, `poor` below.

    Returns:
        Counts of `fasttext.train`, and "scores": {score: rows}.

    Raises:
        ValueError: no labels, or all of them on one side of `config.good`.
    """
    rows = [(r["text"], int(r["score"] + 0.5)) for r in read(labels)]
    scores = {
        str(s): sum(1 for _, score in rows if score == s) for s in range(prompt.LOWEST, prompt.HIGHEST + 1)
    }
    good = sum(1 for _, score in rows if score >= config.good)
    if not 0 < good < len(rows):
        raise ValueError(
            f"{labels}: {good} of {len(rows)} labels reach `quality.good` = {config.good}, so there is nothing to tell "
            f"apart (labels by score: {scores}); label more documents or choose another `quality.good`"
        )
    pairs = ((text, GOOD if score >= config.good else POOR) for text, score in rows)
    return fasttext.train(pairs, config.classifier, output, seed) | {"scores": scores}


def _ask_all(
    client: httpx.Client, todo: list[tuple[str, str]], question: _Question
) -> Iterator[tuple[str, Answer | str]]:
    """(id, label or error) as answers arrive; at most `config.concurrency` requests in flight."""
    _check_server(client, question.model)
    config, pace = question.config, _Pace(question.config.requests_per_minute)
    in_a_row = 0
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=max(1, config.concurrency)) as pool:
        waiting: dict[Future[Answer | str], str] = {}
        rest = iter(todo)
        try:
            while True:
                for identifier, text in rest:
                    waiting[pool.submit(_ask, client, text, question, pace, stop)] = identifier
                    if len(waiting) >= config.concurrency:
                        break
                if not waiting:
                    return
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    answer = future.result()
                    in_a_row = in_a_row + 1 if isinstance(answer, str) else 0
                    if in_a_row >= _GIVE_UP_AFTER:
                        raise LabelError(
                            f"{client.base_url}: no usable answer for {in_a_row} documents in a row, the last one: "
                            f"{answer}; labels so far are kept, run again to continue"
                        )
                    yield waiting.pop(future), answer
        finally:
            stop.set()


def _ask(
    client: httpx.Client, text: str, question: _Question, pace: _Pace, stop: threading.Event
) -> Answer | str:
    """The label of one document, or why there is none. Refusals that no retry can mend raise LabelError."""
    key = question.key(text)
    jitter = random.Random(f"{question.seed}\0{key}")
    error, asked_to_wait = "stopped", 0.0
    for attempt in range(max(1, question.config.retries)):
        if attempt:
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempt - 1)) * (0.5 + jitter.random())
            if stop.wait(max(pause, asked_to_wait)):
                break
        if pace.wait(stop):
            break
        try:
            response = client.post("chat/completions", json=question.body(text, attempt))
        except httpx.HTTPError as failure:
            error, asked_to_wait = f"{type(failure).__name__}: {failure}", 0.0
            continue
        asked_to_wait = _retry_after(response)
        if response.status_code in _REFUSED_STATUS:
            raise LabelError(
                f"{response.url} refuses the request: {response.status_code} {response.text[:300]}"
            )
        if response.status_code != 200:
            error = f"status {response.status_code}: {response.text[:200]}"
            if response.status_code in _RETRIED_STATUS:
                continue
            break
        try:
            return {"key": key} | question.read(response.json())
        except prompt.UnreadableAnswer as failure:
            error = str(failure)
        except (KeyError, IndexError, TypeError, ValueError) as failure:
            error = f"not an OpenAI chat completion ({type(failure).__name__}: {failure}): {response.text[:120]!r}"
    return error


def _retry_after(response: httpx.Response) -> float:
    """Seconds that a busy server asks to wait, at most `_LONGEST_PAUSE`."""
    try:
        return min(_LONGEST_PAUSE, float(response.headers.get("retry-after", 0)))
    except ValueError:  # a date
        return _FIRST_PAUSE


def _check_server(client: httpx.Client, model: str) -> None:
    """Fail before the first document when the server is not there or serves another model."""
    error = ""
    for attempt in range(3):
        time.sleep(0.5 * attempt)
        try:
            response = client.get("models")
            response.raise_for_status()
            served = [str(m["id"]) for m in response.json()["data"]]
        except httpx.HTTPError as failure:
            error = f"{type(failure).__name__}: {failure}"
        except (KeyError, TypeError, ValueError):
            raise LabelError(
                f"{client.base_url}models does not answer as an OpenAI-compatible server"
            ) from None
        else:
            if model not in served:
                raise LabelError(
                    f"{client.base_url} does not serve the model {model!r}; it serves: {', '.join(served) or 'none'} "
                    "(set quality.label.model)"
                )
            return
    raise LabelError(
        f"no answer from {client.base_url}models ({error}); is the server of quality.label.base_url running?"
    )


def _known(path: Path) -> dict[str, Answer]:
    """Labels of an earlier call by key. A last line that a kill cut short is ignored; it is asked again."""
    if not path.is_file():
        return {}
    known = {}
    for line in path.read_bytes().splitlines():
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(row, dict) and {"key", "score", "reason", "model"} <= row.keys():
            known[row["key"]] = {k: v for k, v in row.items() if k not in ("id", "text")}
    return known


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file that `ask` wrote."""
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = orjson.loads(line)
            if not isinstance(row["text"], str) or not isinstance(row["score"], (int, float)):
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: expected a label {{id, score, text, …}}") from error
        yield row


def _lines(rows: list[bytes]) -> bytes:
    return b"".join(row + b"\n" for row in rows)
