"""A local Hugging Face model as an OpenAI-compatible server, for labels of quality: `label.local_model=FOLDER|FILE.gguf`.

    python -m pretrain.rate --model FOLDER --port 0

prints its address (`http://127.0.0.1:PORT/v1`) as the first line and serves `GET /v1/models` and
`POST /v1/chat/completions`, one request at a time, until it is stopped, or with `--until-stdin-closes` until its parent is
gone. Answers are greedy and hold the log-probabilities of the first token, from which the expectation over the scores
follows; one token costs one forward pass.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from configs import own_path  # noqa: F401

MAX_REQUEST_BYTES = 16 * 2**20
TOP = 20
"""Log-probabilities returned of the first token, beside those of the digits 0 to 5."""


class Rater:
    """A model and its chat template."""

    def __init__(self, path: Path) -> None:
        """Load a folder of a Hugging Face model, or a GGUF file; in bf16 on a GPU, else in fp32.

        Raises:
            ValueError, OSError: it cannot be loaded, or its tokenizer has no chat template.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()

        where: dict[str, Any] = {"local_files_only": True}
        folder = path
        if path.suffix == ".gguf":
            folder, where["gguf_file"] = path.parent, path.name
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder), **where)
        if self.tokenizer.chat_template is None:
            raise ValueError(f"{path}: its tokenizer has no chat template; give an instruct model")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, **where)
        self.model: Any = torch.nn.Module.to(model, self.device).eval()
        self.name = path.name
        ids = {d: self.tokenizer(d, add_special_tokens=False).input_ids for d in "012345"}
        self.digits = {digit: tokens[0] for digit, tokens in ids.items() if len(tokens) == 1}
        self.lock = threading.Lock()
        self.cache: Any = None
        self.cached: list[int] = []
        """Tokens whose keys and values `cache` holds."""

    def answer(self, messages: list[dict[str, str]], max_tokens: int) -> dict[str, Any]:
        """{text, top, prompt_tokens, completion_tokens} of the greedy answer; `top`: (token, log-probability) of its first
        token, the likeliest first."""
        import torch

        prompt = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = self.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids.to(self.device)
        with self.lock, torch.inference_mode():
            logits = self._next(ids)
            if max_tokens == 1:
                made = logits.argmax(keepdim=True)
            else:
                made = self.model.generate(ids, max_new_tokens=max_tokens, do_sample=False)[0, ids.shape[1] :]
        scores = torch.log_softmax(logits, 0)
        values, tokens = scores.topk(TOP)
        top = [(self.tokenizer.decode([t]), v) for t, v in zip(tokens.tolist(), values.tolist(), strict=True)]
        # A small model would rather begin a sentence: its scores are often not among the likeliest tokens.
        top += [
            (digit, scores[t].item()) for digit, t in self.digits.items() if t not in set(tokens.tolist())
        ]
        text = self.tokenizer.decode(made, skip_special_tokens=True)
        return {"text": text, "top": top, "prompt_tokens": ids.shape[1], "completion_tokens": len(made)}

    def _next(self, ids: Any) -> Any:
        """Logits after a prompt [1, n]. Keys and values of what it has in common with the one before, which is the rubric,
        are kept: a third to a half of the work."""
        from transformers import DynamicCache

        prompt = ids[0].tolist()
        same = 0
        for a, b in zip(prompt[:-1], self.cached, strict=False):
            if a != b:
                break
            same += 1
        rest, self.cached = same - len(self.cached), []  # known again once the cache is whole
        try:
            if same and rest:
                self.cache.crop(rest)  # negative: so many tokens are removed
        except RuntimeError:  # attention over a sliding window has forgotten what would be kept
            same = 0
        if same == 0:
            self.cache = DynamicCache(config=self.model.config)
        logits = self.model(
            ids[:, same:], past_key_values=self.cache, use_cache=True, logits_to_keep=1
        ).logits
        self.cached = prompt
        return logits[0, -1].float()


def completion(rater: Rater, body: Any) -> dict[str, Any]:
    """The response to a request.

    Raises:
        KeyError, TypeError, ValueError: the request is not of the protocol.
    """
    messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in body["messages"]]
    made = rater.answer(messages, int(body.get("max_tokens") or 200))
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": made["text"]},
        "finish_reason": "stop",
    }
    if body.get("logprobs"):
        top = [{"token": token, "logprob": value} for token, value in made["top"]]
        choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    asked, answered = made["prompt_tokens"], made["completion_tokens"]
    usage = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
    return {"object": "chat.completion", "model": rater.name, "choices": [choice], "usage": usage}


def handler(rater: Rater) -> type[BaseHTTPRequestHandler]:
    """Handler of the protocol's two addresses."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._send(HTTPStatus.OK, {"object": "list", "data": [{"id": rater.name, "object": "model"}]})

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if length > MAX_REQUEST_BYTES:
                self.close_connection = True
                self._send(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": {"message": "the request is too large"}}
                )
                return
            raw = self.rfile.read(length)
            try:
                self._send(HTTPStatus.OK, completion(rater, json.loads(raw)))
            except (KeyError, TypeError, ValueError) as error:
                self._send(HTTPStatus.BAD_REQUEST, {"error": {"message": f"{type(error).__name__}: {error}"}})

        def _send(self, status: HTTPStatus, body: dict[str, Any]) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing of every request; the client counts them."""

    return Handler


def main(argv: Sequence[str] | None = None) -> int:
    """Serve a model until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m pretrain.rate", description=__doc__)
    parser.add_argument(
        "--model", required=True, type=Path, help="folder of a Hugging Face model, or a GGUF file"
    )
    parser.add_argument("--port", type=int, default=0, help="port; 0: a free one")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the parent process does")
    arguments = parser.parse_args(argv)
    try:
        rater = Rater(arguments.model)
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {arguments.model} cannot be loaded: {error}", file=sys.stderr)
        return 1
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), handler(rater))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    try:
        if arguments.until_stdin_closes:
            sys.stdin.read()
        else:
            threading.Event().wait()
    except KeyboardInterrupt:
        pass
    # A request under way would outlive the interpreter in torch's threads, which then aborts the process.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
