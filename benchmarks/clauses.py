"""trafilatura's own tests on real pages, clause by clause, on this project and on trafilatura.

    python benchmarks/clauses.py CHECKOUT          # a checkout of trafilatura: tests/realworld_tests.py and tests/cache

A clause is one `assert "…" in result` or `not in result` on the text of a page, as the tests' run without XML checks it.
trafilatura is run with the readers' comments, as its tests do, and without; this project leaves comments of articles out.
The pages come with the repository alone, not with its releases.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trafilatura_peer import texts_of


@dataclass(frozen=True)
class Clause:
    """What must, or must not, appear in the text of a page."""

    url: str
    snippet: str
    present: bool

    def holds(self, text: str) -> bool:
        """Whether a text keeps it."""
        return (self.snippet in text) is self.present


def clauses(tests: Path) -> tuple[dict[str, str], list[Clause]]:
    """(files of pages by address, clauses) of trafilatura's file of tests."""
    files: dict[str, str] = {}
    found: list[Clause] = []
    for statement in ast.parse(tests.read_text()).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            pairs = zip(statement.value.keys, statement.value.values, strict=True)
            files |= {
                k.value: v.value
                for k, v in pairs
                if isinstance(k, ast.Constant) and isinstance(v, ast.Constant) and isinstance(k.value, str)
            }
        elif isinstance(statement, ast.FunctionDef) and statement.name.startswith("test_"):
            found += _of(statement.body)
    return files, found


def _of(body: list[ast.stmt]) -> Iterator[Clause]:
    url = ""
    for statement in body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
            first = statement.value.args[0] if statement.value.args else None
            if isinstance(first, ast.Constant) and str(first.value).startswith("http"):
                url = str(first.value)
        elif isinstance(statement, ast.If):  # `xmloutput is False`
            wanted = ast.unparse(statement.test).endswith("False")
            for clause in _of(statement.body if wanted else statement.orelse):
                yield Clause(url, clause.snippet, clause.present)
        elif isinstance(statement, ast.Assert):
            parts = statement.test.values if isinstance(statement.test, ast.BoolOp) else [statement.test]
            for part in parts:
                if (
                    isinstance(part, ast.Compare)
                    and isinstance(part.left, ast.Constant)
                    and ast.unparse(part.comparators[0]) == "result"
                ):
                    yield Clause(url, str(part.left.value), isinstance(part.ops[0], ast.In))


def our_texts(pages: list[bytes], urls: list[str]) -> list[str]:
    """Main texts by the shipped classifier."""
    from data_pipeline.extract import html
    from data_pipeline.read.charset import decode

    return [
        html.main_text(decode(page, None, html=True)[0].encode("utf-8", "replace"), url).text
        for page, url in zip(pages, urls, strict=True)
    ]


def main() -> int:
    """Count the clauses that hold, and print those that do not hold here."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="checkout of trafilatura")
    tests = parser.parse_args().checkout / "tests"
    if not (tests / "realworld_tests.py").is_file() or not (tests / "cache").is_dir():
        print(
            f"error: {tests} holds no realworld_tests.py and cache; name a checkout of trafilatura",
            file=sys.stderr,
        )
        return 1
    files, found = clauses(tests / "realworld_tests.py")
    found = [c for c in found if c.url in files and (tests / "cache" / files[c.url]).is_file()]
    urls = list(dict.fromkeys(c.url for c in found))
    pages = [(tests / "cache" / files[url]).read_bytes() for url in urls]
    ours = dict(zip(urls, our_texts(pages, urls), strict=True))
    theirs = dict(zip(urls, texts_of(pages, comments=True)[0], strict=True))
    plain = dict(zip(urls, texts_of(pages)[0], strict=True))
    print(f"{len(found)} clauses on {len(urls)} pages")
    for name, texts in (("arriero", ours), ("trafilatura", theirs), ("trafilatura without comments", plain)):
        print(f"{name:30}{sum(c.holds(texts[c.url]) for c in found):5}")
    for clause in found:
        if not clause.holds(ours[clause.url]):
            kind = "missing" if clause.present else "wrong"
            there = "holds" if clause.holds(theirs[clause.url]) else "does not hold"
            print(f"  {kind} (there it {there}): {clause.snippet!r} {clause.url[:80]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
