"""A small local server that speaks the OpenAI chat protocol, so that labelling runs where no Llama is served.

    python -m data_pipeline.quality.server --port 0

prints its address (`http://127.0.0.1:PORT/v1`) as the first line and serves `GET /v1/models` and
`POST /v1/chat/completions` until it is stopped, or with `--until-stdin-closes` until its parent is gone. It answers
with the transparent rules of `quality.rater`; `serve` takes any other function of the messages.
"""

from __future__ import annotations

import argparse
import contextlib
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from configs import children
from data_pipeline.quality import prompt, rater

MODEL = rater.NAME
MAX_REQUEST_BYTES = 16 * 2**20
_START_SECONDS = 300

Generate = Callable[[list[dict[str, str]]], str]
"""From chat messages ({role, content}) to the text of the answer."""


def rate(messages: list[dict[str, str]]) -> str:
    """Answer of the built-in rater: a rating of the document in the last user message."""
    content = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
    return rater.answer(prompt.document_of(content))


@contextlib.contextmanager
def serve(
    generate: Generate = rate, model: str = MODEL, host: str = "127.0.0.1", port: int = 0
) -> Iterator[str]:
    """Serve `generate` on a thread of this process; yields the base URL (`http://host:port/v1`)."""
    server = ThreadingHTTPServer((host, port), _handler(generate, model))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="label-server", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def child(module: str = "data_pipeline.quality.server", *arguments: str) -> Iterator[str]:
    """Run a module that serves as a child process, this one by default; yields its base URL. It ends with the caller.

    Raises:
        ChildProcessError: the server did not start; the message holds what it wrote.
    """
    process = subprocess.Popen(
        children.command(module, *arguments, "--port", "0", "--until-stdin-closes"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=children.environment(),
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
        address = process.stdout.readline().strip() if ready else ""
        if not address:
            raise ChildProcessError(
                f"the label server did not start within {_START_SECONDS} s (exit status {process.poll()}); "
                "its own error is above"
            )
        yield address
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


class _BadRequest(ValueError):
    """A request that is not of the protocol."""


def _messages(body: Any) -> list[dict[str, str]]:
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not messages:
        raise _BadRequest("`messages` must be a list with at least one message")
    plain = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):  # content parts: their text
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if not isinstance(content, str) or not isinstance(message.get("role"), str):
            raise _BadRequest("every message needs `role` and `content`, both text")
        plain.append({"role": message["role"], "content": content})
    return plain


def _handler(generate: Generate, model: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "arriero-label-server"
        # One packet an answer: header and body in two would wait 40 ms for the client's delayed acknowledgement.
        wbufsize = 1 << 16
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path.rstrip("/") == "/v1/models":
                entry = {"id": model, "object": "model", "created": 0, "owned_by": "local"}
                self._send(HTTPStatus.OK, {"object": "list", "data": [entry]})
            else:
                self._fail(HTTPStatus.NOT_FOUND, f"no such address: {self.path}")

        def do_POST(self) -> None:
            try:
                length = int(self.headers.get("Content-Length", ""))
            except ValueError:
                self.close_connection = True
                self._fail(HTTPStatus.LENGTH_REQUIRED, "the request needs a Content-Length")
                return
            if length > MAX_REQUEST_BYTES:
                self.close_connection = True
                self._fail(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request is over {MAX_REQUEST_BYTES} bytes"
                )
                return
            raw = self.rfile.read(length)
            if self.path.rstrip("/") != "/v1/chat/completions":
                self._fail(HTTPStatus.NOT_FOUND, f"no such address: {self.path}")
                return
            try:
                body = orjson.loads(raw)
                messages = _messages(body)
                if body.get("model", model) != model:
                    self._fail(
                        HTTPStatus.NOT_FOUND, f"the model {body['model']!r} does not exist; this is {model!r}"
                    )
                    return
                if body.get("stream"):
                    raise _BadRequest("streaming is not supported")
            except orjson.JSONDecodeError as error:
                self._fail(HTTPStatus.BAD_REQUEST, f"the request is no JSON: {error}")
                return
            except _BadRequest as error:
                self._fail(HTTPStatus.BAD_REQUEST, str(error))
                return
            try:
                text = generate(messages)
            except Exception as error:  # whatever the given function raises becomes the protocol's 500
                self._fail(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
                return
            asked = sum(len(m["content"].split()) for m in messages)
            answered = len(text.split())
            self._send(
                HTTPStatus.OK,
                {
                    "id": f"chatcmpl-{time.time_ns():x}",
                    "object": "chat.completion",
                    "created": int(time.time()),
                    "model": model,
                    "choices": [
                        {
                            "index": 0,
                            "message": {"role": "assistant", "content": text},
                            "finish_reason": "stop",
                        }
                    ],
                    # Words, as this server has no tokenizer.
                    "usage": {
                        "prompt_tokens": asked,
                        "completion_tokens": answered,
                        "total_tokens": asked + answered,
                    },
                },
            )

        def _send(self, status: HTTPStatus, body: dict[str, Any]) -> None:
            raw = orjson.dumps(body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def _fail(self, status: HTTPStatus, message: str) -> None:
            kind = "invalid_request_error" if status < 500 else "server_error"
            self._send(status, {"error": {"message": message, "type": kind, "param": None, "code": None}})

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing of every request; the client counts them."""

    return Handler


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the built-in rater until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m data_pipeline.quality.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port; 0: a free one")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when the parent process does")
    arguments = parser.parse_args(argv)
    try:
        with serve(host=arguments.host, port=arguments.port) as address:
            print(address, flush=True)
            if arguments.until_stdin_closes:
                sys.stdin.read()
            else:
                threading.Event().wait()
    except OSError as error:
        print(f"error: cannot listen on {arguments.host}:{arguments.port}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
