"""The head of the report: a sentence about the run and its key figures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from launch.report.charts import Row, column
from launch.report.page import Figure
from launch.report.read import Record, is_step
from launch.report.sections import latest, spent_time
from launch.report.words import duration, number, share, short, size

ENDED = {
    "finished": "finished",
    "failed": "failed",
    "hung": "hung",
    "preempted": "preempted, to be continued",
    "stopped": "stopped",
}


def subtitle(record: Record) -> str:
    """What was trained, on what, how it stands, and when."""
    if record.run_dir is None:
        sources = ", ".join(record.funnel.get("sources") or {})
        return f"data run {record.data_dir}" + (f" · sources {sources}" if sources else "")
    config = record.config
    model, train = config.get("model") or {}, config.get("train") or {}
    words = []
    if model:
        words.append(
            f"Llama {model.get('name')}: {model.get('n_layers')} layers, {model.get('dim')} wide, "
            f"{model.get('n_heads')} heads ({model.get('n_kv_heads')} KV)"
        )
    if record.packed is not None:
        words.append(f"data {record.packed}")
    if train:
        words.append(f"{train.get('dtype')}, batch of {train.get('global_batch_size')} sequences")
    states = [str(r["event"]) for r in record.ledger if r.get("event") in {*ENDED, "started"}]
    if states:
        words.append(ENDED.get(states[-1], "started, not ended"))
    times = [r["time"] for r in record.ledger if is_step(r.get("time"))]
    if times:
        words.append(f"last event {datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M} UTC")
    return " · ".join(words) or "This directory holds no configuration and no ledger."


def key_figures(record: Record) -> list[Figure]:
    """The tiles of the header; a figure that is unknown is left out."""
    if record.run_dir is None:
        return data_figures(record)
    rows, figures = record.metrics, []
    parameters = count_parameters(record)
    if parameters:
        figures.append(Figure(short(parameters), "parameters"))
    if rows:
        target = (record.config.get("train") or {}).get("steps")
        figures.append(Figure(number(rows[-1]["step"]), "steps", f"of {number(target)}" if target else ""))
        tokens = column(rows, "tokens")
        if np.isfinite(tokens).any():
            figures.append(Figure(short(float(tokens[np.isfinite(tokens)].sum())), "tokens trained on"))
        loss, window = final_loss(rows)
        if loss is not None:
            last = rows[-1].get("loss")
            mean = f"mean of the last {window} steps" if window > 1 else "of the last step"
            note = mean if is_step(last) else "the last step's is not finite"
            figures.append(Figure(f"{loss:.3f}", "training loss", note))
    if evals := latest(record.evals):
        pooled = evals[-1]
        figures.append(
            Figure(
                number(pooled.get("bits_per_byte"), 3),
                "held-out bits per byte",
                f"{number(pooled.get('nats_per_token'), 3)} nats per token",
            )
        )
    if (speed := median(rows, "tokens_per_second")) is not None:
        mfu = median(rows, "mfu")
        note = f"{100 * mfu:.1f} % MFU" if mfu is not None else ""
        figures.append(Figure(short(speed), "tokens per second", note))
    spent = spent_time(record.ledger)
    if spent:
        restarts = int(spent["restarts"])
        note = f"{restarts} restart{'' if restarts == 1 else 's'}"
        figures.append(Figure(f"{100 * spent['goodput']:.1f} %", "goodput", note))
        figures.append(Figure(duration(spent["wall"]), "wall time"))
    return figures


def median(rows: Sequence[Row], key: str) -> float | None:
    """Median of the finite values of a key; None where there is none."""
    values = column(rows, key)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def final_loss(rows: Sequence[Row]) -> tuple[float | None, int]:
    """Mean training loss of the last steps with a finite one, and of how many; None where no loss is finite."""
    loss = column(rows, "loss")
    loss = loss[np.isfinite(loss)]
    window = max(1, min(50, len(loss) // 10))
    return (float(loss[-window:].mean()) if len(loss) else None), window


def data_figures(record: Record) -> list[Figure]:
    """The tiles of a page about data alone."""
    rows = [r for r in (record.funnel.get("sources") or {}).values() if isinstance(r, dict)]
    total = {
        k: sum(int(r.get(k) or 0) for r in rows)
        for k in ("read_documents", "set_aside_documents", "kept_documents", "kept_bytes")
    }
    figures = [
        Figure(
            number(total["read_documents"]),
            "documents read",
            f"{number(total['set_aside_documents'])} set aside",
        ),
        Figure(
            number(total["kept_documents"]), "kept", share(total["kept_documents"], total["read_documents"])
        ),
        Figure(size(total["kept_bytes"]), "of text kept"),
    ]
    tokens = [
        int((s or {}).get("tokens") or 0)
        for s in (record.manifest.get("streams") or {}).values()
        if isinstance(s, dict)
    ]
    if tokens:
        figures.append(Figure(short(sum(tokens)), "tokens packed"))
    seconds = [float(s.get("seconds") or 0) for s in record.funnel.get("stages") or [] if isinstance(s, dict)]
    return [*figures, Figure(duration(sum(seconds)), "in the stages")] if seconds else figures


def count_parameters(record: Record) -> int:
    """Parameters of the model; 0 where the configuration or the vocabulary size is unknown."""
    m, vocab = record.config.get("model") or {}, (record.manifest.get("tokenizer") or {}).get("vocab_size")
    keys = ("dim", "n_layers", "n_heads", "n_kv_heads", "ffn_dim")
    if not isinstance(vocab, int) or not all(isinstance(m.get(k), int) and m[k] > 0 for k in keys):
        return 0
    d, kv = m["dim"], m["dim"] // m["n_heads"] * m["n_kv_heads"]
    block = 2 * d * d + 2 * d * kv + 3 * d * m["ffn_dim"] + 2 * d
    return vocab * d * (1 if m.get("tied") else 2) + m["n_layers"] * block + d
