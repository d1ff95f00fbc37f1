"""Papers as LaTeX: whether macros of their authors are left, and how fast they are read.

    ARRIERO_TEST_DATA=DIR python benchmarks/latex.py [--latexpand FILE]

Reads DIR/latex. Definitions are found by a pattern of this script, not by the parser that is judged, in the files that the
main file includes; names in verbatim text do not count, and those of LaTeX's own structure (`\\section`, …) keep their
meaning on purpose. With the script latexpand (Perl, of TeX Live) each paper is also read from what that makes of it: files
included and comments removed by it. Speed is that of reading packages and making text, in bytes of TeX that the main
file includes, by processor time, the best of three.
"""

from __future__ import annotations

import argparse
import os
import posixpath
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from configs.schema.pipeline import RecipeConfig
from data_pipeline.extract import latex
from data_pipeline.extract.latex.define import PROTECTED
from data_pipeline.extract.latex.source import VERBATIM, Bundle
from data_pipeline.read import Record, SetAside, Source, Unit, records
from data_pipeline.read.units import plan

RECIPE = RecipeConfig(name="arxiv", reader="arxiv")
BAR = 2.0
"""MB of TeX a second and core."""
COMMENT = re.compile(r"(?<!\\)((?:\\\\)*)%.*")
DEFINITION = re.compile(
    r"\\(?:(?:new|renew|provide)command|DeclareRobustCommand|DeclareMathOperator|[gex]?def)\*?\s*\{?\s*\\([A-Za-z]+)\s*\}?"
    r"(\s*\[[1-9]\]|[^{}\n]{0,40}#1)?"
)
INCLUDE = re.compile(r"\\(?:input|include|subfile)\s*\{?\s*([^\s{}\\]+)")
OWN = PROTECTED | {"markboth"}
"""Names of LaTeX's own; the book gives `\\markboth` another meaning in one group, and calls LaTeX's outside of it."""
HIDDEN = re.compile(
    rf"\\begin\s*\{{({VERBATIM})\}}.*?\\end\s*\{{\1\}}|\\verb\*?([^A-Za-z\s]).*?\2", re.DOTALL
)


def included(bundle: Bundle) -> dict[str, str]:
    """Files that belong to the paper, without comments."""
    found: dict[str, str] = {}
    waiting = [bundle.main]
    while waiting:
        name = waiting.pop()
        if name in found or name not in bundle.files:
            continue
        found[name] = "\n".join(COMMENT.sub(r"\1", line) for line in bundle.files[name].splitlines())
        for target in INCLUDE.findall(found[name]):
            for folder in (posixpath.dirname(bundle.main), posixpath.dirname(name)):
                path = posixpath.normpath(posixpath.join(folder, target))
                waiting += [path, path + ".tex"]
    return found


def left(bundle: Bundle, text: str) -> tuple[int, int, dict[str, int]]:
    """Macros defined, those of them with arguments, and those that the text still calls, with how often."""
    kinds: dict[str, bool] = {}
    for source in included(bundle).values():
        for name, argument in DEFINITION.findall(source):
            kinds[name] = kinds.get(name, False) or bool(argument)
    shown = HIDDEN.sub("", text)
    calls: dict[str, int] = {}
    for name in re.findall(r"\\([A-Za-z]+)", shown):
        if name in kinds and name not in OWN:
            calls[name] = calls.get(name, 0) + 1
    return len(kinds), sum(kinds.values()), calls


def through_latexpand(bundle: Bundle, script: str) -> str:
    """Text of the paper that latexpand makes of its files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in bundle.files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        main = Path(folder, bundle.main)
        made = subprocess.run(
            ["perl", script, "--empty-comments", main.name], cwd=main.parent, capture_output=True, check=True
        )
    flat = made.stdout.decode("utf-8", "replace")
    packages = {name: text for name, text in bundle.files.items() if name.endswith(".sty")}
    return latex.to_plain(Bundle(bundle.main, packages | {bundle.main: flat}).to_bytes()).text


def shape(text: str) -> str:
    """Text without blanks, and without the `\\clearpage{}` that latexpand puts around what is included."""
    return "".join(text.replace("\\clearpage{}", "").split())


def read(units: tuple[Unit, ...]) -> list[tuple[Record, Bundle, latex.Plain]]:
    """Every paper, with its text."""
    made = []
    for unit in units:
        for item in records(unit, RECIPE):
            if isinstance(item, SetAside):
                print(f"set aside: {item.file}: {item.reason}")
            elif isinstance(item, Record):
                made.append((item, Bundle(**orjson.loads(item.payload)), latex.to_plain(item.payload)))
    return made


def main() -> int:
    """Print a line a paper and the totals; 1 where a macro is left or the speed is below the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latexpand", help="path of the script latexpand")
    options = parser.parse_args()
    units = plan([Source("arxiv", RECIPE, f"{os.environ['ARRIERO_TEST_DATA']}/latex")], 2**26).units
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        papers = read(units)
        best = min(best, time.process_time() - start)
    print(f"{'paper':<26} {'macros':>6} {'with arguments':>14}  left")
    defined = arguments = size = failed = equal = 0
    for record, bundle, plain in papers:
        count, with_arguments, calls = left(bundle, plain.text)
        defined, arguments = defined + count, arguments + with_arguments
        size += sum(len(bundle.files[name].encode()) for name in included(bundle))
        failed += bool(calls)
        note = ""
        if options.latexpand:
            other = through_latexpand(bundle, options.latexpand)
            same = shape(other) == shape(plain.text)
            equal += same
            note = "" if same else "  differs from latexpand's"
        name = (record.url or "").removeprefix("file:")
        print(f"{name:<26} {count:>6} {with_arguments:>14}  {calls or '-'}{note}")
    speed = size / best / 1e6
    print(
        f"{len(papers)} papers, {defined} macros, {arguments} of them with arguments; macros left in {failed} papers; "
        f"{size / 1e6:.2f} MB of TeX in {best:.2f} s of processor time: {speed:.1f} MB/s a core (bar {BAR:.0f})"
    )
    if options.latexpand:
        print(
            f"text equal to that made from latexpand's output, blanks aside: {equal} of {len(papers)} papers"
        )
    return int(failed > 0 or speed < BAR)


if __name__ == "__main__":
    sys.exit(main())
