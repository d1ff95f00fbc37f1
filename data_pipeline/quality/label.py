"""Quality labels: a sample of documents is shown to a Llama through an OpenAI-compatible server.

The labels then train the classifier that scores every document (`train`), as in FineWeb-Edu (Penedo et al., 2024) and
Llama 3 (Dubey et al., 2024, section 3.1.1).
"""

from __future__ import annotations

import contextlib
import heapq
import random
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import orjson
import xxhash

from configs.schema.pipeline import LabelConfig, QualityConfig
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
    """Label a deterministic sample of documents; write JSONL rows {id, score, reason, model, text} to `output`.

    `base_url: local` starts the built-in server (`quality.server`) for the time of the call. Labels that `output`
    already holds for these texts, this model and this prompt are kept, so an interrupted run continues. Rows are in
    the order of the sample. Documents without a usable answer go to `<output>.failed.jsonl` with the error, and are
    asked again by the next call.

    Returns:
        {"chosen", "labelled", "reused", "failed"}.

    Raises:
        ValueError: `config.base_url` is null.
        LabelError: the server cannot be reached, does not serve the model, refuses the requests, or leaves
            20 documents in a row unanswered.
    """
    if config.base_url is None:
        raise ValueError(
            "`quality.label.base_url` is null; give the address of an OpenAI-compatible server, or `local`"
        )
    chosen = choose(documents, config.documents, seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + ".partial")
    known = _known(output) | _known(partial)
    labels = {i: known[_key(text, config)] for i, text in chosen if _key(text, config) in known}
    reused = len(labels)
    todo = [(i, text) for i, text in chosen if i not in labels]
    failures: list[dict[str, str]] = []
    if todo:
        with contextlib.ExitStack() as stack:
            local = config.base_url == "local"
            address = stack.enter_context(server.child()) if local else config.base_url
            client = stack.enter_context(
                httpx.Client(base_url=address.rstrip("/") + "/", timeout=config.timeout)
            )
            model = server.MODEL if local else config.model
            file = stack.enter_context(partial.open("ab"))
            file.write(b"\n")  # ends a line that a kill cut short
            for identifier, answer in _ask_all(client, todo, model, config, seed):
                if isinstance(answer, str):
                    failures.append({"id": identifier, "error": answer})
                else:
                    labels[identifier] = answer
                    file.write(orjson.dumps(answer) + b"\n")
                    file.flush()
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
    partial.unlink(missing_ok=True)
    return {"chosen": len(chosen), "labelled": len(rows), "reused": reused, "failed": len(failures)}


def train(labels: Path, config: QualityConfig, output: Path, seed: int) -> dict[str, Any]:
    """Train the quality classifier on labels that `label` wrote: `good` from `config.good` on, `poor` below.

    Returns:
        Counts of `fasttext.train`, and "scores": {score: rows}.

    Raises:
        ValueError: no labels, or all of them on one side of `config.good`.
    """
    rows = [(r["text"], int(r["score"])) for r in _rows(labels)]
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


Answer = dict[str, Any]


def _ask_all(
    client: httpx.Client, todo: list[tuple[str, str]], model: str, config: LabelConfig, seed: int
) -> Iterator[tuple[str, Answer | str]]:
    """(id, label or error) as answers arrive; at most `config.concurrency` requests in flight."""
    _check_server(client, model)
    in_a_row = 0
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=max(1, config.concurrency)) as pool:
        waiting: dict[Future[Answer | str], str] = {}
        rest = iter(todo)
        try:
            while True:
                for identifier, text in rest:
                    waiting[pool.submit(_ask, client, text, model, config, seed, stop)] = identifier
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
    client: httpx.Client, text: str, model: str, config: LabelConfig, seed: int, stop: threading.Event
) -> Answer | str:
    """The label of one document, or why there is none. Refusals that no retry can mend raise LabelError."""
    key = _key(text, config)
    jitter = random.Random(f"{seed}\0{key}")
    error, asked_to_wait = "stopped", 0.0
    for attempt in range(max(1, config.retries)):
        if attempt:
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempt - 1)) * (0.5 + jitter.random())
            if stop.wait(max(pause, asked_to_wait)):
                break
        body = {
            "model": model,
            "messages": prompt.messages(text, config.max_characters),
            # Greedy at first; an unreadable answer would come back unchanged, so later tries are sampled.
            "temperature": 0.0 if attempt == 0 else 0.5,
            "max_tokens": 200,
            "seed": seed + attempt,
        }
        try:
            response = client.post("chat/completions", json=body)
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
            score, reason = prompt.parse(response.json()["choices"][0]["message"]["content"] or "")
            return {"key": key, "score": score, "reason": reason, "model": model}
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


def _key(text: str, config: LabelConfig) -> str:
    """What a label depends on: the prompt with the shown part of the text, and the model."""
    shown = orjson.dumps(
        [prompt.messages(text, config.max_characters), config.model, config.base_url == "local"]
    )
    return xxhash.xxh3_128_hexdigest(shown)


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
            known[row["key"]] = {k: row[k] for k in ("key", "score", "reason", "model")}
    return known


def _rows(path: Path) -> Iterator[dict[str, Any]]:
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
