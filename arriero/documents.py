"""Documents: main text, heuristic signals, and whole runs of the data pipeline. Needs the extra `arriero[data]`.

Kernels are compiled when they are first called, which takes minutes once; `python -m data_pipeline.compiling` does it
ahead.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa

from configs.schema.pipeline import DataRun


def extract_text(
    raw: str | bytes, kind: Literal["html", "wikitext", "latex", "text"] = "html", url: str | None = None
) -> str:
    """Return the main text of a page or paper, as the data pipeline extracts it; empty where there is none.

    Args:
        raw: a page of HTML, an article of wikitext, a paper's only TeX file, or plain text. The character set of bytes is
            the one they declare or, without a declaration, is detected.
        kind: what `raw` is.
        url: address of the page, which helps to find its title and to tell lists of links from text.

    Raises:
        ValueError: a paper that cannot be read; the message says why.
    """
    from data_pipeline.extract import extract
    from data_pipeline.read import Record

    charset = "utf-8" if isinstance(raw, str) else None
    payload = raw.encode("utf-8", "replace") if isinstance(raw, str) else raw
    if kind == "latex":
        from data_pipeline.extract.latex.source import Bundle
        from data_pipeline.read.charset import decode

        payload = Bundle("main.tex", {"main.tex": decode(payload, charset, html=False)[0]}).to_bytes()
    return extract(Record("", 0, 0, kind, payload, "", url, charset)).text


def signals(texts: Iterable[str], languages: Sequence[str | None] | None = None) -> pa.Table:
    """Return the heuristic signals of texts: one row a text, one column a signal.

    Columns are named as in policies, `SIDECAR.COLUMN`, such as `gopher.n_words`. Those of numbers are float64, null where
    a signal is undefined; `hashes.content_hash` is text.

    Args:
        languages: ISO 639-1 code of each text, for its stop words; null or absent: unknown.

    Raises:
        ValueError: there are not as many languages as texts.
    """
    from data_pipeline.heuristics.annotate import annotate_texts

    column = pa.chunked_array([pa.array(list(texts), pa.string())])
    if languages is not None and len(languages) != len(column):
        raise ValueError(
            f"there are {len(languages)} languages for {len(column)} texts; give one for each text"
        )
    sidecars, _ = annotate_texts(column, languages)
    return pa.table(
        {
            f"{sidecar}.{name}": values
            for sidecar, columns in sidecars.items()
            for name, values in columns.items()
        }
    )


def run_data(config: DataRun) -> Path:
    """Run the data pipeline, and return the directory of the run; the packed dataset is `packed` in it.

    A run that was interrupted continues, and stages whose inputs have not changed are skipped. Progress is printed. With
    several workers (`executor.workers`; null: one for each core) a script must call this below
    `if __name__ == "__main__":`, because `multiprocessing` imports it again.

    Raises:
        ConfigError: a configuration that cannot work; nothing has been written then.
        ValueError, OSError, RuntimeError: the run failed; the message says where and what to do.
    """
    from data_pipeline import driver, workers

    began = time.monotonic()
    if not config.dry_run:
        workers.start(config)
    driver.run(config, began)
    return Path(config.output).expanduser().absolute()
