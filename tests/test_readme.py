"""Every command of README.md runs as it stands, in order, in one folder, on inputs of a laptop's size.

Placeholders (`DIR`, `…`, `URL`, `TEXT`, `ids.txt`) get values. For time alone, `SHORTER` is appended to some commands. What
`EXEMPT` names is not run: it installs, or runs this very test. A command that the README gains is run too; where it
cannot be, the test fails until its kind is understood here.
"""

from __future__ import annotations

import gzip
import html
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from readme import Command, commands, overrides, python_block, yaml_block
from toyrun import ROOT, make_packed

from data_pipeline.zstd import zstd

EXEMPT = ("make ", "pip install ", "python3 -m venv ", "arriero VERB --help")
SHORTER = {
    # Two minutes on two cores, and 128,256 tokens of vocabulary.
    "arriero train experiment=first": "train.steps=12 schedule.warmup_steps=1 train.eval_every=6",
}
COMPOSED = "arriero train experiment=mine model=8b"
"""Of the file that the README shows, for GPUs: composed and checked, and not run."""
DATA = "arriero data input=DIR output=data/web --cfg job"
TRAIN = "arriero train model=debug data.path=data/web/packed"
BEFORE = {
    "optim.lr=1e-3,3e-3 run.dir='runs/lr-${optim.lr}'": (
        f"{TRAIN} train.steps=2 schedule.warmup_steps=1 train.global_batch_size=1 train.eval_sequences=1 --multirun"
    ),
    "tokenizer=llama3": DATA,
    "tokenizer=small": DATA,
    "tokenizer.path=DIR": DATA,
    "stop_after=final jsonl=true": DATA,
    "recipe.filter.rules.gopher.short.min=100": DATA,
    "filter@recipe.filter=NAME": DATA,
    "schedule.warmup_steps=0": f"{TRAIN} run.dir=runs/d model.init_from=runs/a --cfg job",
}
"""What the README's text shows of command lines, and a command that it completes."""
PATIENCE = 900
"""Seconds for a command, of which most take a few: the machine may be busy."""


def pages() -> dict[str, str]:
    """Texts that every Python has, by name."""
    from pydoc_data.topics import topics

    return dict(topics)


def record(url: str, body: bytes) -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2024-05-31T00:00:00Z\r\n"
        f"Content-Type: application/http\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def page(title: str, text: str) -> bytes:
    paragraphs = "".join(f"<p>{html.escape(' '.join(p.split()))}</p>" for p in text.split("\n\n"))
    return f"<html lang=en><head><title>{title}</title></head><body><h1>{title}</h1>{paragraphs}</body></html>".encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the inputs that the README names."""
    folder = tmp_path_factory.mktemp("readme")
    texts = list(pages().items())
    records = [record(f"http://docs{i % 25}.org/{k}", page(k, v)) for i, (k, v) in enumerate(texts)]
    # Pages that a judge of quality does not like.
    short = [page(f"Item {i}", f"Item number {i} of the list, with nothing more to say.") for i in range(16)]
    records += [record(f"http://shop{i}.org/", body) for i, body in enumerate(short)]
    for name in ("DIR", "crawl"):
        (folder / name).mkdir()
        (folder / name / "a.warc.gz").write_bytes(b"".join(gzip.compress(r) for r in records))
    rows = [
        json.dumps({"text": "\n\n".join(v for _, v in texts[i : i + 8])}) for i in range(0, len(texts), 8)
    ]
    (folder / "books.jsonl.zst").write_bytes(zstd.compress("\n".join(rows).encode()))
    # Packages of arXiv, one TeX file each.
    (folder / "papers").mkdir()
    for i, (key, text) in enumerate(texts):
        paper = f"\\documentclass{{article}}\n\\begin{{document}}\n\\section{{{key}}}\n{text}\n\\end{{document}}\n"
        (folder / f"papers/0704.{i:04d}.gz").write_bytes(gzip.compress(paper.encode()))
    # A dump of Stack Exchange.
    (folder / "dumps/superuser").mkdir(parents=True)
    posts = "".join(
        f'<row Id="{i}" PostTypeId="1" Score="1" Title="{key}" Body="{html.escape(text).replace(chr(10), "&#xA;")}" />\n'
        for i, (key, text) in enumerate(texts, 1)
    )
    (folder / "dumps/superuser/Posts.xml").write_text(f"<posts>\n{posts}</posts>\n")
    (folder / "eval").mkdir()
    (folder / "eval/questions.jsonl").write_text(json.dumps({"question": "What does the with statement do?"}))
    pq.write_table(pa.table({"id": ["0" * 32], "educational": [3.5]}), folder / "scores.parquet")
    (folder / "my_module.py").write_text(
        "def score(documents):\n    return {'length': [len(t) for t in documents['text'].to_pylist()]}\n"
    )
    path, content = yaml_block()
    (folder / path).parent.mkdir(parents=True)
    (folder / path).write_text(content)
    (folder / "configs/filter").mkdir()
    shutil.copy(ROOT / "configs/filter/web.yaml", folder / "configs/filter/NAME.yaml")
    # The scripts that pip would write.
    (folder / "bin").mkdir()
    for name, module in (("arriero", "launch.cli"), ("torchrun", "torch.distributed.run")):
        script = folder / "bin" / name
        script.write_text(
            f"#!{sys.executable}\nimport sys\nfrom {module} import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
        )
        script.chmod(0o755)
    (folder / "bin/python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    (folder / "bin/python").chmod(0o755)
    return folder


def filled(command: Command, folder: Path) -> str:
    """A command with values for its placeholders, shorter where it would take long."""
    text = command.text.replace("data.path=…", "data.path=data/web/packed").replace(
        "run.dir=…", "run.dir=runs/c"
    )
    if "url=URL" in text:
        url = text.replace("url=URL", f"url={kept(folder)['url'][0]}")
        assert "`near=TEXT` instead of `url=`" in (ROOT / "README.md").read_text()
        words = re.findall(r"\w+", kept(folder)["text"][0])
        near = text.replace("url=URL", f"near='{' '.join(words)}'")
        text = f"{url} && {near}"
    if "file=ids.txt" in text:
        (folder / "ids.txt").write_text(f"{kept(folder)['id'][0]}\n")
    return " ".join([text, *(more for start, more in SHORTER.items() if text.startswith(start))])


def kept(folder: Path) -> dict[str, list[str]]:
    return pq.read_table(folder / "data/web/kept/00000.parquet", columns=["id", "url", "text"]).to_pydict()


def test_the_scripts_are_those_of_the_package() -> None:
    scripts = {e.name: e.value for e in entry_points(group="console_scripts")}
    assert 'arriero = "launch.cli:main"' in (ROOT / "pyproject.toml").read_text()
    assert scripts["torchrun"] == "torch.distributed.run:main"


def run(text: str, folder: Path) -> str:
    """What a command prints; it must succeed."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONSAFEPATH", "SLURM_CONF")}
    env |= {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        ["bash", "-c", text],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # also what the command has started
            raise
    assert process.returncode == 0 and "Traceback" not in printed, f"{text}\n{printed[-6000:]}"
    return printed


@pytest.mark.timeout(7200)
def test_every_command_of_the_readme_runs_as_it_stands(folder: Path) -> None:
    done = 0
    for command in commands():
        if not command.text.startswith(EXEMPT):
            text = filled(command, folder)
            assert "…" not in text, f"README.md:{command.line}: no value for a placeholder in {text}"
            run(text, folder)
            done += 1
    assert done >= 25
    assert COMPOSED in yaml_block()[1]
    assert "sequences: 30720" in run(f"{COMPOSED} data.path=data/web/packed run.dir=runs/c --cfg job", folder)
    for words in overrides():
        assert words in BEFORE, f"the README's {words} is not known to this test"
        run(f"{BEFORE[words]} {words}", folder)


def test_the_python_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    make_packed(tmp_path / "data/web/packed")
    (tmp_path / "snippet.py").write_text(python_block())
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "snippet.py"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert (tmp_path / "runs/python/metrics.jsonl").is_file()


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ("```\narriero data\nrsync a b\n```\n", 3),
        ("| you have | you run |\n|---|---|\n| files | `rsync a b` |\n", 3),
    ],
)
def test_what_is_no_known_command_is_told(
    told: str, line: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text(told)
    monkeypatch.setattr("readme.ROOT", tmp_path)
    with pytest.raises(ValueError, match=f"README.md:{line} is no command"):
        commands()
