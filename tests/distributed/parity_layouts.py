"""The layouts that are compared with one process: `CORE` in every test run, `FULL` in campaigns."""

from __future__ import annotations

from typing import Any

from parity_cases import GLOBAL, ODD, Case

from configs.schema.train import ParallelConfig
from pretrain.parallel.pipeline_schedules import SPLIT


def case(
    tied: bool = False,
    model: tuple[tuple[str, Any], ...] = (),
    optim: str = "adamw",
    whole: bool = False,
    schedule: str = "1f1b",
    virtual: int = 0,
    train: dict[str, Any] | None = None,
    varlen: bool = False,
    **sizes: int,
) -> Case:
    """Sizes of the mesh by short names: pp, replicate, shard, cp, tp.

    Where the batch allows it, ranks accumulate over two micro-batches, and a pipeline has two for each of its stages.
    Models that no pipeline splits have two blocks: every block costs dozens of messages. Interleaved pipelines have two
    virtual stages a rank unless more are given; parameters stay whole where the schedule needs it.
    """
    names = {"replicate": "dp_replicate", "shard": "dp_shard"}
    mesh = {"dp_shard": 1, **{names.get(k, k): v for k, v in sizes.items()}}
    whole = whole or schedule in SPLIT
    virtual = virtual or (2 if schedule == "interleaved" else 1)
    parallel = ParallelConfig(  # type: ignore[arg-type]
        **mesh, pp_schedule=schedule, pp_virtual=virtual, reshard_after_forward=not whole
    )
    share = GLOBAL // (parallel.dp_replicate * parallel.dp_shard)
    size = max(1, share // (2 * parallel.pp))
    if parallel.pp == 1 and not model:
        model = (("n_layers", 2),)
    options = {"micro_batch_size": size, **(train or {})}
    return Case(parallel, tied, train=tuple(options.items()), model=model, optim=optim, varlen=varlen)


FULLY = {"activation_checkpointing": "full"}
SELECTIVELY = {"activation_checkpointing": "selective"}
EIGHT = {"micro_batch_size": 1}
"""Micro-batches of a pipeline that is not replicated."""
PADDED = (("vocab_size", 97), ("vocab_multiple", 256))
"""The vocabulary does not divide, and half of four ranks hold nothing but its padding."""
DEEP = (("n_layers", 8),)
ONE_KV_HEAD = (("n_kv_heads", 1),)
ALL_KV_HEADS = (("n_kv_heads", 8),)

CORE = [
    # One dimension.
    case(shard=2),
    case(replicate=2, tied=True),
    case(tp=2, train=SELECTIVELY),
    case(pp=2, model=ODD),
    case(pp=2, schedule="interleaved"),
    case(pp=2, schedule="zbv", tied=True, train=FULLY),
    case(cp=2, train=FULLY),
    case(shard=4, tied=True, model=ODD, whole=True),
    case(tp=4, tied=True),
    case(tp=4, model=PADDED),
    case(pp=4, tied=True),
    case(pp=4, schedule="dualpipev", model=DEEP),
    case(cp=4, model=ONE_KV_HEAD),
    # Two.
    case(replicate=2, shard=2),
    case(shard=2, tp=2, optim="muon"),
    case(pp=2, tp=2, schedule="gpipe", tied=True),
    case(pp=2, shard=2, schedule="dualpipev", tied=True, model=ODD),
    case(pp=2, cp=2, tied=True, train=SELECTIVELY),
    case(shard=2, cp=2, model=ODD),
    case(cp=2, tp=2),
    case(pp=2, tp=4, schedule="interleaved", whole=True, model=ALL_KV_HEADS),
    # Three.
    case(pp=2, shard=2, tp=2, schedule="zbv"),
    case(pp=2, cp=2, tp=2, tied=True),
    case(pp=2, replicate=2, cp=2, optim="muon"),
    case(shard=2, cp=2, tp=2, train=FULLY),
    # As on GPUs.
    *(
        case(varlen=True, **options)
        for options in (
            {"shard": 2},
            {"tp": 2, "train": SELECTIVELY},
            {"cp": 2, "train": FULLY},
            {"cp": 2, "tp": 2},
            {"pp": 2, "cp": 2, "tied": True, "train": SELECTIVELY},
        )
    ),
]
FULL = [
    case(varlen=True, cp=4, model=ONE_KV_HEAD),
    case(varlen=True, pp=2, shard=2, tp=2, schedule="zbv"),
    *[
        case(tied=tied, train=train, **sizes)
        for sizes in ({"shard": 2}, {"replicate": 2}, {"tp": 2}, {"pp": 2}, {"cp": 2})
        for tied in (False, True)
        for train in ({}, FULLY, SELECTIVELY)
    ],
    *[
        case(tied=(i + j) % 2 == 0, schedule=schedule, model=DEEP, **sizes)
        for i, schedule in enumerate(("1f1b", "gpipe", "interleaved", "zbv", "dualpipev"))
        for j, sizes in enumerate(
            (
                {"pp": 4},
                {"pp": 2, "tp": 2},
                {"pp": 2, "shard": 2},
                {"pp": 2, "replicate": 2},
                {"pp": 2, "cp": 2},
                {"pp": 4, "tp": 2},
                {"pp": 4, "cp": 2},
                {"pp": 2, "tp": 4},
                {"pp": 2, "shard": 2, "tp": 2},
                {"pp": 2, "replicate": 2, "tp": 2},
                {"pp": 2, "cp": 2, "tp": 2},
                {"pp": 2, "shard": 2, "cp": 2},
                {"pp": 2, "replicate": 2, "cp": 2},
            )
        )
    ],
    case(pp=2, schedule="interleaved", virtual=4, model=DEEP),
    case(pp=2, schedule="interleaved", virtual=3, model=(("n_layers", 7),), tied=True),
    *[
        case(pp=4, shard=2, tied=tied, schedule=schedule, model=DEEP)
        for tied in (False, True)
        for schedule in ("1f1b", "zbv")
    ],
    case(pp=2, replicate=2, shard=2, tied=True),
    *[
        case(tied=tied, optim=optim, **sizes)
        for tied, optim in ((False, "adamw"), (True, "muon"))
        for sizes in (
            {"shard": 4},
            {"shard": 8},
            {"replicate": 2, "shard": 2},
            {"replicate": 4, "shard": 2},
            {"shard": 2, "tp": 2},
            {"replicate": 2, "tp": 2},
            {"shard": 2, "cp": 2},
            {"replicate": 2, "cp": 2},
            {"tp": 4},
            {"cp": 4},
            {"cp": 8},
            {"cp": 2, "tp": 2},
            {"cp": 2, "tp": 4},
            {"cp": 4, "tp": 2},
            {"shard": 4, "tp": 2},
            {"shard": 2, "tp": 4},
            {"shard": 4, "cp": 2},
            {"replicate": 2, "shard": 2, "tp": 2},
            {"replicate": 2, "shard": 2, "cp": 2},
            {"replicate": 2, "cp": 2, "tp": 2},
            {"shard": 2, "cp": 2, "tp": 2},
        )
    ],
    *[
        case(tied=tied, model=ODD, whole=whole, **sizes)
        for tied, whole in ((False, False), (True, True))
        for sizes in (
            {"shard": 8},
            {"pp": 4},
            {"pp": 4, "shard": 2},
            {"pp": 2, "shard": 4},
            {"pp": 2, "shard": 2, "cp": 2},
            {"replicate": 2, "shard": 2, "cp": 2},
        )
    ],
    *[
        case(tied=tied, schedule=schedule, train=train | EIGHT, model=DEEP, pp=pp)
        for schedule in ("interleaved", "zbv", "dualpipev")
        for pp, tied, train in ((2, False, FULLY), (2, True, SELECTIVELY), (4, True, {}))
    ],
    case(pp=4, shard=2, schedule="interleaved", model=DEEP, tied=True),
    case(pp=2, schedule="interleaved", whole=True),
    # Four dimensions, and all five.
    case(pp=2, shard=2, cp=2, tp=2, schedule="zbv", tied=True),
    case(pp=2, shard=2, cp=2, tp=2, tied=True),
    case(pp=2, replicate=2, shard=2, tp=2, schedule="zbv"),
    case(pp=2, replicate=2, cp=2, tp=2, schedule="interleaved"),
    case(pp=2, replicate=2, shard=2, cp=2, tied=True, model=ODD),
    case(replicate=2, shard=2, cp=2, tp=2, train=SELECTIVELY),
    case(pp=2, replicate=2, shard=2, cp=2, tp=2, tied=True),
]
COMPILED = [case(train={"compile": True}, **sizes) for sizes in ({"shard": 2}, {"pp": 2}, {"cp": 2})]
