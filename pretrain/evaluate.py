"""`arriero evaluate`: held-out loss by source, in nats per token and bits per byte.

Every token of a document after its first is predicted once, the end-of-text token too. The first is the begin-of-text
token; where the tokenizer puts none, it is the text's first token, and its bytes are not counted. Nats per token is the
total loss ÷ the tokens predicted; bits per byte is the total loss ÷ ln 2 ÷ the UTF-8 bytes that those tokens stand for (the
end-of-text token stands for none), so runs with different tokenizers compare. `all` is the total over all sources,
not a mean of their means. Rows go to `eval.jsonl` of the run directory; a whole split also leaves the bits of each
document in `heldout_documents.jsonl` (or `train_documents.jsonl`).

Examples:
  arriero evaluate run.dir=runs/a
  arriero evaluate run.dir=runs/a step=500 max_sequences=64
  torchrun --nproc-per-node 2 -m pretrain.evaluate run.dir=runs/a      # ranks share the work and the weights
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist

from configs import edge
from configs.edge import ConfigError
from configs.schema.train import EvaluateRun, ParallelConfig, TrainConfig, TrainRun
from data_pipeline.packed import PADDING, PackedDataset, PackedError, vocabulary
from data_pipeline.packed.files import write_atomically
from pretrain.checkpoint import restore_model
from pretrain.data.batch import IGNORE
from pretrain.data.loader import heldout_batches
from pretrain.distributed import Process, process_group, run_to_end, together
from pretrain.dtype import decide
from pretrain.metrics.console import Console
from pretrain.parallel.engine import Engine
from pretrain.parallel.layout import Layout
from pretrain.parallel.mesh import build_mesh
from pretrain.rundir import JsonlLog, dataset_of
from pretrain.weights import read_config


@dataclass(frozen=True)
class SourceLoss:
    """Totals of one source over what was scored."""

    source: str
    nats: float
    """Sum of token losses."""
    tokens: int
    """Tokens predicted."""
    bytes: int
    """UTF-8 bytes of text that those tokens stand for."""

    @property
    def nats_per_token(self) -> float:
        """Mean loss; NaN where no token was scored."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def bits_per_byte(self) -> float:
        """Compression that the model reaches; NaN where no byte was scored."""
        return self.nats / math.log(2) / self.bytes if self.bytes else math.nan


@dataclass(frozen=True)
class DocumentBits:
    """What a model needs for one document alone."""

    id: str
    """32 hexadecimal digits."""
    source: str
    """Name of its source."""
    bytes: int
    """UTF-8 bytes of its text that are predicted."""
    bits: float
    """Sum of −log2 p of its tokens, end of text included."""


def main(argv: Sequence[str] | None = None) -> int:
    """`arriero evaluate`."""
    return edge.main("evaluate", EvaluateRun, run, __doc__, argv)


def run(config: EvaluateRun) -> int:
    """Evaluate, print the table, append to eval.jsonl; returns the exit status, 1 where a loss is not finite."""
    with process_group(config.device, timeout=1800.0) as process:
        losses, step = _evaluate(config, process)
    broken = [loss.source for loss in losses if not math.isfinite(loss.nats)]
    if broken and process.rank == 0:
        metrics = Path(config.run.dir) / "metrics.jsonl"
        print(
            f"error: the loss of {', '.join(broken)} is not a finite number: the weights of step {step} are damaged; "
            f"look at loss and grad_norm in {metrics}, and evaluate an earlier one with step=N",
            file=sys.stderr,
        )
    return 1 if broken else 0


def _evaluate(config: EvaluateRun, process: Process) -> tuple[list[SourceLoss], int]:
    """Evaluate, print and write; the loss of each source and the step, on every rank."""
    run_dir, console = Path(config.run.dir), Console(process.rank == 0, progress=False)
    # What is wrong with the run or the dataset is said before anything about this machine.
    together(lambda: open_packed(config, read_config(run_dir), run_dir))
    precision = decide(config.dtype, process.device)
    precision.tell(console.say, console.warn)
    config = replace(config, dtype=precision.dtype)  # type: ignore[arg-type]  # asked for one of its own
    engine, packed, step = open_run(config, process)
    documents, split, size = None, config.split, config.batch_size
    if config.max_sequences is None:
        losses, documents = evaluate_documents(engine, packed, split, size, process.device)
    else:
        losses = evaluate(engine, packed, split, size, config.max_sequences, process.device)
    if process.rank == 0:
        if documents is not None:
            write_documents(run_dir / f"{split}_documents.jsonl", step, documents)
        rows = eval_rows(losses, step, split)
        JsonlLog(run_dir / "eval.jsonl").write(rows)
        print(f"{run_dir}, step {step}, {split} split of {packed.path}")
        print(table(rows))
    return losses, step


def write_documents(path: Path, step: int, documents: Sequence[DocumentBits]) -> None:
    """What the model of a step needs for each document, one JSON object a line; replaces an earlier file."""
    write_atomically(path, "".join(json.dumps({"step": step, **asdict(d)}) + "\n" for d in documents))


def open_run(config: EvaluateRun, process: Process) -> tuple[Engine, PackedDataset, int]:
    """The model of a run with a checkpoint's weights, the packed dataset, and the step.

    Raises:
        ConfigError: no such run, checkpoint or dataset, or the dataset was made with another tokenizer.
    """
    run_dir = Path(config.run.dir)
    trained = together(lambda: read_config(run_dir))
    packed = together(lambda: open_packed(config, trained, run_dir))
    train = TrainConfig(
        steps=1,
        global_batch_size=process.world_size * config.batch_size,
        micro_batch_size=config.batch_size,
        sequence_length=packed.sequence_length,
        dtype=config.dtype,
        compile=False,
    )
    layout = Layout.check(ParallelConfig(), train, trained.model, packed.vocab_size, process.world_size)
    mesh = build_mesh(layout, process.device.type)
    engine = Engine(
        trained.model, packed.vocab_size, ParallelConfig(), train, mesh, process.device, trained.seed
    )
    return engine, packed, restore_model(engine, run_dir, config.step)


def open_packed(config: EvaluateRun, trained: TrainRun, run_dir: Path) -> PackedDataset:
    """The dataset to evaluate on; ConfigError where it is not named or was made with another tokenizer."""
    named = config.data.path or trained.data.path
    if not named:
        raise ConfigError(f"{run_dir} was imported and names no dataset; give data.path=DIR/packed")
    path = Path(named) if config.data.path else dataset_of(run_dir, trained.run.dir, named)
    packed = PackedDataset(path)
    if packed.sequence_length > trained.model.max_sequence_length:
        raise ConfigError(
            f"{path} has sequences of {packed.sequence_length} tokens, but the model reads at most "
            f"{trained.model.max_sequence_length} (model.max_sequence_length)"
        )
    tokenizer = run_dir / "tokenizer/tokenizer.json"
    if tokenizer.is_file() and hashlib.sha256(tokenizer.read_bytes()).hexdigest() != packed.tokenizer_hash:
        raise ConfigError(
            f"{path} was packed with another tokenizer than {run_dir} was trained with ({tokenizer}); "
            "pack the data with that one (tokenizer.path)"
        )
    return packed


def evaluate(
    engine: Engine,
    packed: PackedDataset,
    split: Literal["heldout", "train"],
    batch_size: int,
    max_sequences: int | None,
    device: torch.device,
) -> list[SourceLoss]:
    """Loss of each source of a split; collective, every rank gets the same result.

    Args:
        batch_size: sequences of one forward pass on one rank.
        max_sequences: of each stream at the most; None: all.
    """
    lengths = torch.from_numpy(token_bytes(packed.tokenizer_path / "tokenizer.json", packed.vocab_size))
    totals: dict[str, torch.Tensor] = {}
    for stream, info in packed.streams(split).items():
        total = totals.setdefault(info.source, torch.zeros(3, dtype=torch.float64, device=device))
        for batch in heldout_batches(
            packed, stream, batch_size, max_sequences, engine.dp_rank, engine.dp_size
        ):
            # All but the losses is counted on the host, which does not wait for them.
            scored = batch.labels[batch.labels != IGNORE]
            total[0] += engine.token_losses(batch).sum(dtype=torch.float64)
            total[1] += scored.numel()
            total[2] += int(lengths[scored].sum())
    for total in totals.values():
        _sum_over_data_parallel(engine, total)
    return [SourceLoss(s, t[0].item(), int(t[1].item()), int(t[2].item())) for s, t in sorted(totals.items())]


def eval_rows(losses: Sequence[SourceLoss], step: int, split: str) -> list[dict[str, Any]]:
    """Rows of eval.jsonl, one a source, and `all` for their total."""
    total = SourceLoss(
        "all", sum(s.nats for s in losses), sum(s.tokens for s in losses), sum(s.bytes for s in losses)
    )
    return [
        {
            "step": step,
            "source": s.source,
            "split": split,
            "nats_per_token": s.nats_per_token,
            "bits_per_byte": s.bits_per_byte,
            "tokens": s.tokens,
            "bytes": s.bytes,
        }
        for s in (*losses, total)
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of an evaluation as text."""
    width = max(8, *(len(row["source"]) for row in rows)) + 2
    head = f"{'source':<{width}}{'nats/token':>12}{'bits/byte':>12}{'tokens':>14}{'bytes':>14}"
    return "\n".join(
        [
            head,
            *(
                f"{row['source']:<{width}}{row['nats_per_token']:>12.4f}{row['bits_per_byte']:>12.4f}"
                f"{row['tokens']:>14,}{row['bytes']:>14,}"
                for row in rows
            ),
        ]
    )


def document_bits(
    engine: Engine, packed: PackedDataset, stream: str, batch_size: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the model needs for each document of a stream; collective, every rank gets the same result.

    Returns:
        Arrays [documents], row by row as `packed.documents(stream)`: the row (int64), UTF-8 bytes of the document that
        are predicted (int64), bits (float64). A document split over several sequences has the sum over its parts,
        each predicted without sight of the others.
    """
    documents = packed.documents(stream)
    nats = torch.zeros(len(documents), dtype=torch.float64)
    # Bytes of the token that each document begins with: they are predicted only where another token precedes them.
    given = torch.zeros(len(documents), dtype=torch.float64)
    lengths = None
    if not packed.manifest.tokenizer.begin:
        lengths = token_bytes(packed.tokenizer_path / "tokenizer.json", packed.vocab_size)
    batches = heldout_batches(packed, stream, batch_size, None, engine.dp_rank, engine.dp_size)
    for number, batch in enumerate(batches):
        losses = engine.token_losses(batch).to("cpu", torch.float64)
        first = (number * engine.dp_size + engine.dp_rank) * batch_size
        for index, row in zip(range(first, packed.stream(stream).sequences), losses, strict=False):
            sequence = packed.read(stream, index)
            segments = sequence.segments
            if lengths is not None:
                first_parts = segments[(segments["offset"] == 0) & (segments["document"] != PADDING)]
                owners = torch.from_numpy(first_parts["document"].astype(np.int64))
                given[owners] = torch.from_numpy(lengths[sequence.tokens[first_parts["start"]]]).double()
            starts = np.append(segments["start"].astype(np.int64), packed.sequence_length)
            owner = np.repeat(segments["document"].astype(np.int64), np.diff(starts))
            real = torch.from_numpy(owner != PADDING)
            nats.index_add_(0, torch.from_numpy(owner)[real], row[real])
    nats, given = nats.to(device), given.to(device)
    _sum_over_data_parallel(engine, nats)
    _sum_over_data_parallel(engine, given)
    rows = np.arange(len(documents), dtype=np.int64)
    sizes = documents["bytes"].astype(np.int64) - given.cpu().numpy().astype(np.int64)
    return rows, sizes, (nats / math.log(2)).cpu().numpy()


def evaluate_documents(
    engine: Engine,
    packed: PackedDataset,
    split: Literal["heldout", "train"],
    batch_size: int,
    device: torch.device,
) -> tuple[list[SourceLoss], list[DocumentBits]]:
    """Loss of each source and of each document of a whole split, in one pass; collective as `evaluate`."""
    documents: list[DocumentBits] = []
    totals: dict[str, list[int]] = {}
    for stream, info in packed.streams(split).items():
        table = packed.documents(stream)
        rows, sizes, bits = document_bits(engine, packed, stream, batch_size, device)
        ids = table["id"]
        documents += [
            DocumentBits(ids[row].tobytes().hex(), info.source, int(size), float(b))
            for row, size, b in zip(rows, sizes, bits, strict=True)
            if table["tokens"][row] > 0  # a row of zeros: taken out of the dataset
        ]
        total = totals.setdefault(info.source, [0, 0])
        # The first token of a document is given, every other token is predicted.
        total[0] += int(table["tokens"].sum()) - int((table["tokens"] > 0).sum())
        total[1] += int(sizes.sum())
    bits_of = {s: math.fsum(d.bits for d in documents if d.source == s) for s in totals}
    losses = [SourceLoss(s, bits_of[s] * math.log(2), *totals[s]) for s in sorted(totals)]
    return losses, documents


def token_bytes(tokenizer_json: Path, vocab_size: int) -> np.ndarray:
    """`data_pipeline.packed.vocabulary.token_bytes`; ConfigError where the file is missing or of another kind."""
    try:
        return vocabulary.token_bytes(tokenizer_json, vocab_size)
    except PackedError as error:
        raise ConfigError(str(error)) from None


def _sum_over_data_parallel(engine: Engine, values: torch.Tensor) -> None:
    """Sum over data-parallel ranks; ranks that share one batch (TP, PP, CP) hold equal values, counted once."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
        values /= dist.get_world_size() // engine.dp_size


if __name__ == "__main__":
    run_to_end(main)
