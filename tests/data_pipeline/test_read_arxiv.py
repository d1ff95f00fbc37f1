"""Source packages of arXiv: archives in archives, what is no source, damage, hostile archives."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
import tracemalloc
from pathlib import Path

import orjson
import pytest

from configs.schema.pipeline import RecipeConfig
from data_pipeline import collect
from data_pipeline.document import read_shard
from data_pipeline.extract import latex
from data_pipeline.read import Item, Record, SetAside, records, tar
from data_pipeline.read.arxiv import arxiv_id
from data_pipeline.read.units import Source, plan

RECIPE = RecipeConfig(name="arxiv", reader="arxiv")
DOCUMENT = r"\documentclass{article}\begin{document}\section{S} Text.\end{document}"


def packed(files: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def package(files: dict[str, str]) -> bytes:
    return gzip.compress(packed({name: text.encode() for name, text in files.items()}), mtime=0)


def read(path: Path, recipe: RecipeConfig = RECIPE) -> list[Item]:
    return [
        item for unit in plan([Source("a", recipe, str(path))], 2**26).units for item in records(unit, recipe)
    ]


def found(items: list[Item]) -> list[tuple[str | None, list[str]]]:
    return [(i.url, sorted(orjson.loads(i.payload)["files"])) for i in items if isinstance(i, Record)]


def reasons(items: list[Item]) -> list[str]:
    return [i.reason for i in items if isinstance(i, SetAside)]


@pytest.mark.parametrize("outer", ["", ".gz"])
def test_an_archive_of_packages_gives_each_paper_and_names_what_is_none(tmp_path: Path, outer: str) -> None:
    good = package({"ms.tex": DOCUMENT + r"\input{s/a}", "s/a.tex": "a", "fig.pdf": "%PDF"})
    archive = packed(
        {
            "0704/0704.0001.gz": good,
            "0704/0704.0002.pdf": b"%PDF-1.4 ...",
            "0704/0704.0003.gz": gzip.compress(DOCUMENT.encode()),
            "0704/0704.0004.gz": good[: len(good) // 2],
            "0704/hep-th9901001.gz": package({"paper.tex": DOCUMENT}),
            "0704/0704.0005.gz": package({"readme.txt": "nothing"}),
            "0704/0704.0006.gz": gzip.compress(b"%!PS-Adobe"),
            "0704/0704.0007.gz": b"\x1f\x8b\x08\0 not gzip at all",
            "0704/2103.01234v2.gz": gzip.compress(DOCUMENT.encode()),
        }
    )
    path = tmp_path / f"arXiv_src_0704_001.tar{outer}"
    path.write_bytes(gzip.compress(archive) if outer else archive)
    items = read(path)
    assert found(items) == [
        ("https://arxiv.org/abs/0704.0001", ["ms.tex", "s/a.tex"]),
        ("https://arxiv.org/abs/0704.0003", ["0704.0003.tex"]),
        ("https://arxiv.org/abs/hep-th/9901001", ["paper.tex"]),
        ("https://arxiv.org/abs/2103.01234", ["2103.01234v2.tex"]),
    ]
    said = reasons(items)
    assert [r.split(":")[0] for r in said] == [
        f"0704/0704.000{n}.{e}" for n, e in zip("24567", ["pdf", *["gz"] * 4], strict=True)
    ]
    for part, reason in zip(
        ("PDF without", "damaged", "no main file", "PostScript", "damaged"), said, strict=True
    ):
        assert part in reason
    last = items[-1]
    assert isinstance(last, Record) and last.metadata == {"arxiv_id": "2103.01234", "version": "v2"}


def test_an_archive_cut_off_keeps_the_papers_before(tmp_path: Path) -> None:
    archive = packed({f"0704/0704.000{n}.gz": package({"a.tex": DOCUMENT}) for n in range(1, 4)})
    starts = [m.offset for m in tar.members(io.BytesIO(archive))]
    (tmp_path / "a.tar").write_bytes(archive[: starts[2] + 552])
    items = read(tmp_path)
    assert [url for url, _ in found(items)] == [f"https://arxiv.org/abs/0704.000{n}" for n in (1, 2)]
    assert ["0704.0003" in r and "damaged archive" in r for r in reasons(items)][:1] == [True]
    (tmp_path / "a.tar").write_bytes(archive[: starts[1]] + b"x" * 512 + archive[starts[1] :])
    items = read(tmp_path)
    assert [url for url, _ in found(items)] == ["https://arxiv.org/abs/0704.0001"]
    assert "no header at byte" in reasons(items)[0] and "behind it are lost" in reasons(items)[0]


def test_folders_packages_and_single_files_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "one" / "parts").mkdir(parents=True)
    (tmp_path / "one" / "main.tex").write_text(DOCUMENT)
    (tmp_path / "one" / "parts" / "a.tex").write_text("a")
    (tmp_path / "one" / "fig.png").write_bytes(b"\x89PNG\0")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "0704.0001.tex").write_text(DOCUMENT)
    (tmp_path / "flat" / "0704.0002.tex").write_text(DOCUMENT)
    (tmp_path / "two.tar.gz").write_bytes(package({"main.tex": DOCUMENT}))
    (tmp_path / "readme.md").write_text("not a paper")
    made = plan([Source("a", RECIPE, str(tmp_path))], 2**26)
    assert [(Path(f).name, why) for _, f, why in made.unknown] == [
        ("readme.md", "no source package, and no .tex file lies beside it")
    ]
    items = [item for unit in made.units for item in records(unit, RECIPE)]
    assert found(items) == [
        ("https://arxiv.org/abs/0704.0001", ["0704.0001.tex"]),
        ("https://arxiv.org/abs/0704.0002", ["0704.0002.tex"]),
        ("file:one", ["main.tex", "parts/a.tex"]),
        ("file:two", ["main.tex"]),
    ]


def test_names_that_lead_out_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("../out.tex", "/etc/out.tex", "a/../../out.tex", "./ok/../main.tex"):
            info = tarfile.TarInfo(name)
            info.size = len(DOCUMENT)
            archive.addfile(info, io.BytesIO(DOCUMENT.encode()))
        for kind, name in (
            (tarfile.SYMTYPE, "link.tex"),
            (tarfile.LNKTYPE, "hard.tex"),
            (tarfile.CHRTYPE, "dev.tex"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    (tmp_path / "p.tar.gz").write_bytes(gzip.compress(buffer.getvalue()))
    assert found(read(tmp_path)) == [("file:p", ["main.tex"])]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.tar.gz"]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_are_read_as_tarfile_reads_them(format: int) -> None:
    long = "é/" * 40 + "b" * 60 + ".tex" if format != tarfile.USTAR_FORMAT else "d" * 100 + "/" + "b" * 90
    files = {"a": b"", "b.tex": b"x" * 511, long: b"y" * 512, "d/c": b"z" * 1025}
    data = packed(files, format)
    assert tar.is_tar(data[:512])
    assert {m.name: m.data.read() for m in tar.members(io.BytesIO(data))} == files
    assert [m.name for m in tar.members(io.BytesIO(data))] == list(files)  # nothing of them read


def test_bombs_cost_bounded_memory_and_one_paper(tmp_path: Path) -> None:
    limit = 2**20
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**26
    archive = packed(
        {
            "0704.0001.gz": gzip.compress(packed({"a.tex": b"%" * (8 * limit), "m.tex": DOCUMENT.encode()})),
            "0704.0002.gz": gzip.compress(packed({"fig.eps": bytes(80 * limit), "m.tex": DOCUMENT.encode()})),
            "0704.0003.gz": gzip.compress(
                header.tobuf() + bytes(2**26) + packed({"m.tex": DOCUMENT.encode()})
            ),
            "0704.0004.gz": package({"m.tex": DOCUMENT}),
        }
    )
    (tmp_path / "a.tar").write_bytes(archive)
    recipe = RecipeConfig(name="arxiv", reader="arxiv", max_record_bytes=limit)
    tracemalloc.start()
    items = read(tmp_path / "a.tar", recipe)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [url for url, _ in found(items)][-1] == "https://arxiv.org/abs/0704.0004"
    assert "TeX files are larger" in reasons(items)[0] and "package is larger" in reasons(items)[1]
    assert peak < 16 * limit


def test_old_encodings(tmp_path: Path) -> None:
    body = "\\section{S} Café Poincaré Ångström.\\end{document}"
    for name, declared, codec in (
        ("a", "", "latin1"),
        ("b", "\\usepackage[latin2]{inputenc}", "iso-8859-2"),
        ("c", "", "utf-8"),
    ):
        text = f"\\documentclass{{article}}{declared}\\begin{{document}}{body}"
        text = text.replace("Å", "Ł") if name == "b" else text
        (tmp_path / f"{name}.tar.gz").write_bytes(gzip.compress(packed({"m.tex": text.encode(codec)})))
    texts = [orjson.loads(i.payload)["files"]["m.tex"] for i in read(tmp_path) if isinstance(i, Record)]
    assert (
        "Poincaré Ångström" in texts[0]
        and "Poincaré Łngström" in texts[1]
        and "Poincaré Ångström" in texts[2]
    )


def test_the_author_names_the_main_file(tmp_path: Path) -> None:
    files = {"main.tex": DOCUMENT, "other.tex": DOCUMENT}
    (tmp_path / "a.tar.gz").write_bytes(package({**files, "00README.XXX": "other.tex toplevelfile\n"}))
    declared = json.dumps(
        {
            "sources": [
                {"filename": "main.tex", "usage": "ignore"},
                {"filename": "other.tex", "usage": "toplevel"},
            ]
        }
    )
    (tmp_path / "b.tar.gz").write_bytes(package({**files, "00README.json": declared}))
    (tmp_path / "c.tar.gz").write_bytes(package(files))
    mains = [orjson.loads(i.payload)["main"] for i in read(tmp_path) if isinstance(i, Record)]
    assert mains == ["other.tex", "other.tex", "main.tex"]


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("0704/0704.0001.gz", ("0704.0001", None)),
        ("2103.01234v3.tar.gz", ("2103.01234", "v3")),
        ("hep-th9901001.gz", ("hep-th/9901001", None)),
        ("math.GT0309136.pdf", ("math.GT/0309136", None)),
        ("paper.tar.gz", (None, None)),
    ],
)
def test_identifiers(name: str, identifier: tuple[str | None, str | None]) -> None:
    assert arxiv_id(name) == identifier


def test_a_paper_that_cannot_be_expanded_is_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    bomb = r"\def\f#1{\f{#1#1}}" + DOCUMENT.replace("Text", r"\f{x}")
    archive = packed({"0704.0001.gz": package({"m.tex": bomb}), "0704.0002.gz": package({"m.tex": DOCUMENT})})
    (tmp_path / "a.tar").write_bytes(archive)
    unit = plan([Source("a", RECIPE, str(tmp_path / "a.tar"))], 2**26).units[0]
    counts = collect.read_unit(tmp_path / "run", unit, RECIPE)
    assert counts["read"] == 2 and counts["set_aside"] == 1
    row = json.loads((tmp_path / "run" / "rejected" / "00000.jsonl").read_text())
    assert "0704.0001" in row["reason"] and "without bound" in row["reason"]
    assert read_shard(tmp_path / "run", 0, ["text"])["text"].to_pylist() == ["\\section{S} Text."]


@pytest.mark.skipif("ARRIERO_TEST_DATA" not in os.environ, reason="ARRIERO_TEST_DATA is not set")
def test_real_papers_begin_with_a_section_and_hold_no_definition() -> None:
    items = read(Path(os.environ["ARRIERO_TEST_DATA"]) / "latex")
    assert reasons(items) == [] and len(items) >= 20
    for item in items:
        assert isinstance(item, Record)
        made = latex.to_plain(item.payload)
        assert made.reason is None and len(made.text) > 10_000 and "unexpanded" not in made.metadata
        if made.metadata.get("sections", True):
            assert re.match(r"\\(part|chapter|section)\b", made.text), item.given
        shown = re.sub(
            r"(?s)\\begin\{(verbatim|minted|lstlisting)\}.*?\\end\{\1\}|\\verb(.).*?\2", "", made.text
        )
        assert (
            re.findall(r"\\(?:newcommand|def)(?![A-Za-z])|\\begin\{thebibliography\}|(?<!\\)%.*", shown) == []
        ), item.given
