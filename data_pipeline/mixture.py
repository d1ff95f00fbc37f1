"""The mixture of a run: weights as asked for → weights stored in the packed dataset; the table of its tokens."""

from __future__ import annotations

from collections.abc import Mapping

from configs.schema.pipeline import MixtureConfig
from data_pipeline.packed import Manifest, resolve_epochs, resolve_weights


def resolve_mixture(config: MixtureConfig, sequences: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """`weights` (summing to 1) and `max_epochs` by source, as the manifest stores them.

    sequences: training sequences by source. Raises MixtureError where the configuration does not fit them.
    """
    if not sequences:
        return {"weights": {}, "max_epochs": {}}
    return {
        "weights": resolve_weights(config.weights, sequences),
        "max_epochs": resolve_epochs(config.max_epochs, sequences),
    }


def token_table(manifest: Manifest) -> str:
    """The packed dataset by split and stream: documents, bytes, tokens, sequences, share of training sequences."""
    rows = [("stream", "documents", "bytes", "tokens", "sequences", "bytes/token", "weight", "cut-off")]
    for name, info in sorted(manifest.streams.items(), key=lambda item: (item[1].split != "train", item[0])):
        same = [s for s in manifest.of_split(info.split).values() if s.source == info.source]
        weight = manifest.mixture["weights"].get(info.source, 0.0)
        share = weight * info.sequences / max(sum(s.sequences for s in same), 1)
        rows.append(
            (
                name,
                f"{info.documents:,}",
                f"{info.bytes:,}",
                f"{info.tokens:,}",
                f"{info.sequences:,}",
                f"{info.bytes / max(info.tokens, 1):.2f}",
                f"{share:.4f}" if info.split == "train" else "",
                (manifest.cutoff.get(info.source) or "unknown") if info.split == "train" else "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
