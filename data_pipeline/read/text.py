"""Plain text and HTML files: one file, one document."""

from __future__ import annotations

from collections.abc import Iterator

from configs.schema.pipeline import RecipeConfig
from data_pipeline.read import Item, Record, SetAside, Unit, excerpt, storage
from data_pipeline.read.streams import DAMAGE, TrailingData, open_stream


def read(file: str, unit: Unit, recipe: RecipeConfig) -> Iterator[Item]:
    """The file as one record."""
    try:
        with open_stream(file, recipe.max_window_bytes) as stream:
            payload = stream.read(recipe.max_record_bytes + 1)
            try:
                stream.read(1)  # raises what comes after the text
            except TrailingData as error:
                yield SetAside(file, 0, len(payload), str(error), "nothing after the text, which is read")
    except DAMAGE as error:
        yield SetAside(file, 0, 0, f"not readable: {error}", "a readable file")
        return
    if len(payload) > recipe.max_record_bytes:
        yield SetAside(
            file,
            0,
            0,
            f"larger than {recipe.max_record_bytes} bytes",
            "raise `recipe.max_record_bytes` to read it",
            excerpt(payload),
        )
        return
    name = storage.base_name(file)
    html = recipe.extract == "html" or (recipe.extract == "auto" and unit.kind == "html")
    # The name stands for the document, not the folder it happens to lie in: moving the input keeps the ids.
    yield Record(
        file=file,
        number=0,
        offset=0,
        kind="html" if html else "wikitext" if recipe.extract == "wikitext" else "text",
        payload=payload,
        given=name,
        url=f"file:{name}",
        group=f"file:{name}",
    )
