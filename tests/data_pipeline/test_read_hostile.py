"""Input that means harm: bounded memory and time, the harm set aside and named, the rest read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import hostile
import pytest

from configs.schema.pipeline import RecipeConfig
from data_pipeline.read.units import Source, plan

ROOT = Path(__file__).parents[2]
READ = """
import json, sys, time
from configs.schema.pipeline import RecipeConfig
from data_pipeline.executors.task import peak_memory
from data_pipeline.read import Record, SetAside, records
from data_pipeline.read.units import Source, plan

recipe = RecipeConfig(name="test", max_record_bytes=8 * 2**20)
before = peak_memory()
found = {}
for unit in plan([Source("test", recipe, sys.argv[1])], 2**40).units:
    for name in unit.files:
        began = time.process_time()
        one = type(unit)(**{**unit.__dict__, "files": (name,)})
        sound, aside, languages = 0, [], []
        for item in records(one, recipe):
            if isinstance(item, SetAside):
                aside.append([item.record, item.reason, item.expected])
                assert len(item.reason) < 1000 and len(item.excerpt) < 1000
            elif isinstance(item, Record):
                assert len(item.payload) <= recipe.max_record_bytes
                sound += item.drop is None
                languages.append(item.language)
        seconds = time.process_time() - began
        whole = found.setdefault(name.rsplit("/", 1)[-1], {"sound": 0, "aside": [], "languages": [], "seconds": 0})
        for key, value in {"sound": sound, "aside": aside, "languages": languages, "seconds": seconds}.items():
            whole[key] += value
json.dump({"files": found, "peak": peak_memory() - before}, sys.stdout)
"""


def read(folder: Path) -> dict[str, Any]:
    """Items of each file of a folder, and the memory it took, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", READ, str(folder)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["archives", "lines", "tables", "others"])
def test_harm_is_set_aside_in_bounded_memory_and_the_rest_read(tmp_path: Path, kind: str) -> None:
    expected = getattr(hostile, kind)(tmp_path)
    found = read(tmp_path)
    assert found["files"].keys() == expected.keys()
    wrong = {
        name: (sound, found["files"][name])
        for name, sound in expected.items()
        if sound is not None and found["files"][name]["sound"] != sound
    }
    assert not wrong
    silent = [
        name
        for name, file in found["files"].items()
        if not file["aside"] and name not in ("ids.jsonl", "sound.parquet", "shared.parquet", "url.warc.gz",
                                              "keys.jsonl", "surrogates.jsonl", "chunked.warc.gz")
        and not name.startswith("flipped")
    ]  # fmt: skip
    assert not silent
    # A string of Parquet is there whole or not at all: 100 MB here, held several times by the library.
    assert found["peak"] < (900 if kind == "tables" else 250) * 2**20


def test_language_tags_that_are_paths_are_no_languages(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps({"text": "t", "language": x}) + "\n" for x in ("../../x", "/x", "de", "zh-Hans", "a/b")
        )
    )
    assert read(tmp_path)["files"]["rows.jsonl"]["languages"] == [None, None, "de", "zh", None]


def test_a_hundred_lies_cost_no_hundred_readings(tmp_path: Path) -> None:
    """Lengths that reach far behind their records: the archive must not be expanded once for each of them."""
    filler = b"".join(hostile.squeeze(hostile.good(f"{i}")) for i in range(400))
    liars = [hostile.record("http://example.org/liar", b"x", length=str(10**9)) for _ in range(100)]
    bulk = hostile.squeeze(hostile.record("http://example.org/bulk", b"<p>" + bytes(7 * 2**20)))
    (tmp_path / "a.warc.gz").write_bytes(b"".join(map(hostile.squeeze, liars)) + bulk * 10 + filler)
    (tmp_path / "b.warc").write_bytes(b"".join(liars) + hostile.good("behind") * 3)
    (tmp_path / "honest.warc.gz").write_bytes(bulk * 10 + filler)
    found = read(tmp_path)["files"]
    assert len(found["a.warc.gz"]["aside"]) == 100 and found["a.warc.gz"]["sound"] == 410
    assert len(found["b.warc"]["aside"]) == 100 and found["b.warc"]["sound"] == 3
    # Expanded for each lie, it would take a hundred times as long.
    assert found["a.warc.gz"]["seconds"] < 20 * found["honest.warc.gz"]["seconds"]


def test_what_no_reader_takes_is_left_out_by_name(tmp_path: Path) -> None:
    (tmp_path / "sound.txt").write_text(hostile.TEXT)
    names = hostile.left_out(tmp_path)
    hostile.loops(tmp_path)
    made = plan([Source("test", RecipeConfig(name="test"), str(tmp_path))], 2**26)
    assert [Path(f).name for u in made.units for f in u.files] == ["sound.txt"]
    assert {Path(file).name for _, file, _ in made.unknown} == names
    assert all(reason for _, _, reason in made.unknown)
