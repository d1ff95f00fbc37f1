"""The data plan: a pure function from the global sequence index to a sequence of the packed dataset.

Terms: a *stream* is one folder of the dataset (source, or source and language); a *phase* is what the configuration
asks for; a *piece* is a stretch of a phase in which the same streams take part, because none has reached its cap.

Within a piece, streams take turns in blocks of P. Up to the end of block k, stream s has had
floor(k·P·C[s+1]) − floor(k·P·C[s]) sequences, C being the cumulative weights: exact to less than one sequence at every
block boundary, whatever k. That count could fall where a stream gets less than one sequence a block; such rare streams
get floor(k·P·w + u) instead, u being a keyed offset in [0, 1), and the others share what they leave. The order inside a
block is a keyed shuffle. The m-th sequence of a stream is entry m mod n of a keyed permutation of its n sequences, one
permutation an epoch, so nothing comes twice before everything came once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from configs.schema.train import PhaseConfig
from data_pipeline.packed import Manifest, MixtureError, resolve_epochs, resolve_weights
from pretrain.data.permutation import key_of, permute, shuffle

ONE = 1 << 48
"""Weights are integers out of ONE, so that every count is exact."""
SMALLEST_BLOCK = 256
RARE = 4
"""Streams of fewer sequences a block are rare."""


class PlanError(ValueError):
    """A data plan that cannot be made or that has come to its end; the message has the numbers and what to do."""


@dataclass(frozen=True)
class Skip:
    """An amendment: from global index `at` on, the plan is read `count` sequences further along."""

    at: int
    """First global sequence index that is affected."""
    count: int
    """Sequences of the plan that are never read."""


@dataclass(frozen=True)
class _Stream:
    name: str
    source: str
    sequences: int


@dataclass(frozen=True)
class _Piece:
    phase: int
    start: int
    length: int | None
    """Sequences; None: without end."""
    streams: tuple[int, ...]
    weights: tuple[int, ...]
    """Share of each of `streams`, out of ONE."""
    used: tuple[int, ...]
    """Sequences of each stream (all, not only `streams`) that came before the piece."""
    block: int
    """Sequences of a block."""
    key: int

    def counts(self, blocks: int) -> list[int]:
        """Sequences of each of `streams` in the first `blocks` blocks."""
        n = blocks * self.block
        rare = [weight * self.block < RARE * ONE for weight in self.weights]
        counts = [
            (n * weight + key_of(self.key, "offset", slot) % ONE) // ONE if rare[slot] else 0
            for slot, weight in enumerate(self.weights)
        ]
        left, total = n - sum(counts), sum(w for w, r in zip(self.weights, rare, strict=True) if not r)
        below = 0
        for slot, weight in enumerate(self.weights):
            if not rare[slot]:
                counts[slot] = left * (below + weight) // total - left * below // total
                below += weight
        return counts


class DataPlan:
    """Which sequence stands at each global index; pure, and equal on every process.

    manifest: of the packed dataset. phases: the configuration's, in order; only the last may be without an end; one
    with an end that is last is followed by nothing. seed: key of every shuffle. amendments: skipped windows, in the
    order in which they were made.

    Raises PlanError where phases, weights or caps cannot be followed.
    """

    def __init__(
        self,
        manifest: Manifest,
        phases: Sequence[PhaseConfig],
        seed: int,
        amendments: Sequence[Skip] = (),
    ) -> None:
        self._manifest = manifest
        self._phases = tuple(phases)
        self._seed = seed
        self.amendments = tuple(amendments)
        self._streams = [
            _Stream(name, info.source, info.sequences)
            for name, info in manifest.of_split("train").items()
            if info.sequences > 0
        ]
        if not self._streams:
            raise PlanError("the packed dataset has no training sequence; look at the funnel of its data run")
        if not self._phases:
            raise PlanError("data.phases is empty; expected at least one phase ([{}] is the default)")
        self._sizes: dict[str, int] = {}
        for stream in self._streams:
            self._sizes[stream.source] = self._sizes.get(stream.source, 0) + stream.sequences
        self._weights = [self._phase_weights(i) for i in range(len(self._phases))]
        self._caps = [self._phase_caps(i) for i in range(len(self._phases))]
        for previous, this in zip(self.amendments, self.amendments[1:], strict=False):
            if this.at < previous.at:
                raise PlanError(f"amendments only affect what comes later: {this} follows {previous}")
        self._pieces = self._lay_out()
        self._starts = [piece.start for piece in self._pieces]
        self._order = lru_cache(maxsize=8)(self._block_order)

    def locate(self, n: int) -> tuple[str, int]:
        """(stream name, sequence index in the stream) of global sequence index n, in O(1).

        Raises PlanError where the plan ends before n.
        """
        if n < 0:
            raise PlanError(f"sequence index {n} is negative")
        n += sum(skip.count for skip in self.amendments if n >= skip.at)
        number = bisect_right(self._starts, n) - 1
        piece = self._pieces[number]
        if piece.length is not None and n >= piece.start + piece.length:
            raise PlanError(self._exhausted(n))
        block, position = divmod(n - piece.start, piece.block)
        before, slots, ranks = self._order(number, block)
        slot = int(slots[position])
        index = piece.streams[slot]
        stream = self._streams[index]
        occurrence = piece.used[index] + before[slot] + int(ranks[position])
        epoch, entry = divmod(occurrence, stream.sequences)
        key = key_of("epoch", self._seed, stream.name, epoch)
        return stream.name, permute(entry, stream.sequences, key)

    @property
    def length(self) -> int | None:
        """Sequences the plan has; None: without end."""
        last = self._pieces[-1]
        if last.length is None:
            return None
        return max(0, last.start + last.length - sum(skip.count for skip in self.amendments))

    def check(self, sequences: int) -> None:
        """PlanError unless the plan has at least `sequences` sequences."""
        if self.length is not None and self.length < sequences:
            raise PlanError(self._exhausted(sequences))

    @property
    def hash(self) -> str:
        """SHA-256 of what decides every location: streams, tokenizer, phases (resolved) and seed; not amendments.

        Streams as they were packed: taking documents out moves nothing, so a run goes on with the dataset they left.
        """
        streams = self._manifest.of_split("train")
        content = {
            "tokenizer": self._manifest.tokenizer.hash,
            "sequence_length": self._manifest.sequence_length,
            "streams": {
                s.name: [
                    f.get("as_packed", f["sha256"])
                    for shard in streams[s.name].shards
                    for _, f in sorted(shard.files.items())
                ]
                for s in self._streams
            },
            "phases": [
                [phase.sequences, self._weights[i], self._caps[i]] for i, phase in enumerate(self._phases)
            ],
            "seed": self._seed,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def weights(self, n: int = 0) -> dict[str, float]:
        """Share of sequences by source in force at global index n: the configured one until a source is used up."""
        n += sum(skip.count for skip in self.amendments if n >= skip.at)
        piece = self._pieces[bisect_right(self._starts, n) - 1]
        shares = dict.fromkeys(sorted(self._sizes), 0.0)
        for slot, index in enumerate(piece.streams):
            shares[self._streams[index].source] += piece.weights[slot] / ONE
        return shares

    def consumed(self, n: int) -> dict[str, int]:
        """Sequences of each source among the first n."""

        def first(stop: int) -> dict[str, int]:
            counts = dict.fromkeys(sorted(self._sizes), 0)
            for number, piece in enumerate(self._pieces):
                length = stop - piece.start if piece.length is None else min(stop - piece.start, piece.length)
                for slot, count in enumerate(self._piece_counts(number, length) if length > 0 else ()):
                    counts[self._streams[piece.streams[slot]].source] += count
            return counts

        windows, skipped = [], 0
        for skip in self.amendments:
            if n > skip.at:
                windows.append((skip.at + skipped, skip.at + skipped + skip.count))
                skipped += skip.count
        counts = first(n + skipped)
        for begin, end in windows:
            before, after = first(begin), first(end)
            counts = {source: k - after[source] + before[source] for source, k in counts.items()}
        return counts

    def skip(self, at: int, count: int) -> DataPlan:
        """The plan with one more amendment: from global index `at`, `count` sequences are left out."""
        if count < 1:
            raise PlanError(f"a skipped window must hold at least 1 sequence, not {count}")
        return DataPlan(self._manifest, self._phases, self._seed, (*self.amendments, Skip(at, count)))

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps besides n: the hash and the amendments."""
        return {"hash": self.hash, "amendments": [dataclasses.asdict(skip) for skip in self.amendments]}

    def with_state(
        self, state: Mapping[str, object], n: int = 0, phases: Sequence[PhaseConfig] | None = None
    ) -> DataPlan:
        """The plan with a checkpoint's amendments.

        Args:
            state: of the checkpoint.
            n: sequences that were consumed until then.
            phases: those that the checkpoint followed, where they may be others than this plan's.

        Raises:
            PlanError: it followed a plan that differs in what was consumed.
        """
        followed = self
        if phases is not None and tuple(phases) != self._phases:
            check_extension(phases, self._phases, n + skipped(state))
            followed = DataPlan(self._manifest, phases, self._seed)
        if state["hash"] != followed.hash:
            raise PlanError(
                f"the checkpoint followed data plan {str(state['hash'])[:12]}, this run's is {followed.hash[:12]}: the "
                "packed dataset, data.phases or seed changed; restore them, or begin a new run with model.init_from"
            )
        return DataPlan(self._manifest, self._phases, self._seed, _amendments(state))

    def table(self, sequences: int | None = None) -> str:
        """The plan as text: by phase and source, share, sequences, tokens and epochs of the first `sequences`."""
        total = self.length if sequences is None else sequences
        header = ("phase", "source", "share", "held", "sequences", "tokens", "epochs", "cap")
        rows = [header]
        seen = dict.fromkeys(self._sizes, 0)
        for number, piece in enumerate(self._pieces):
            if total is not None and piece.start >= total:
                break
            end = piece.start + piece.length if piece.length is not None else None
            stop = end if total is None else total if end is None else min(end, total)
            counts = None if stop is None else self._piece_counts(number, stop - piece.start)
            shares = dict.fromkeys(self._sizes, 0.0)
            taken = dict.fromkeys(self._sizes, 0)
            for slot, index in enumerate(piece.streams):
                source = self._streams[index].source
                shares[source] += piece.weights[slot] / ONE
                taken[source] += counts[slot] if counts is not None else 0
            for source in sorted(s for s in shares if shares[s] > 0):
                seen[source] += taken[source]
                cap = self._caps[piece.phase].get(source)
                rows.append(
                    (
                        str(piece.phase + 1),
                        source,
                        f"{shares[source]:.4f}",
                        f"{self._sizes[source]:,}",
                        f"{taken[source]:,}" if counts is not None else "no end",
                        f"{taken[source] * self._manifest.sequence_length:,}" if counts is not None else "",
                        f"{seen[source] / self._sizes[source]:.2f}" if counts is not None else "",
                        f"{cap:g}" if cap is not None else "none",
                    )
                )
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        return "\n".join(
            "  ".join(
                cell.ljust(w) if i == 1 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(r, widths, strict=True))
            )
            for r in rows
        )

    def _phase_weights(self, number: int) -> dict[str, float]:
        phase = self._phases[number]
        asked = phase.weights or self._manifest.mixture["weights"]
        try:
            return resolve_weights(asked, self._sizes)
        except MixtureError as error:
            raise PlanError(f"data.phases[{number}]: {error}") from None

    def _phase_caps(self, number: int) -> dict[str, float]:
        phase = self._phases[number]
        try:
            return resolve_epochs(phase.max_epochs or self._manifest.mixture["max_epochs"], self._sizes)
        except MixtureError as error:
            raise PlanError(f"data.phases[{number}]: {error}") from None

    def _lay_out(self) -> list[_Piece]:
        pieces: list[_Piece] = []
        used = [0] * len(self._streams)
        start = 0
        for number, phase in enumerate(self._phases):
            if phase.sequences is None and number + 1 < len(self._phases):
                raise PlanError(
                    f"data.phases[{number}] has no `sequences`; only the last phase may be without an end"
                )
            if phase.sequences is not None and phase.sequences < 1:
                raise PlanError(f"data.phases[{number}].sequences is {phase.sequences}; expected at least 1")
            left = phase.sequences
            while left is None or left > 0:
                room = self._room(number, used)
                weights = {
                    i: self._weights[number][s.source] * s.sequences / self._sizes[s.source]
                    for i, s in enumerate(self._streams)
                    if room[i] is None or room[i] > 0  # type: ignore[operator]
                }
                piece = self._piece(number, start, weights, tuple(used), len(pieces))
                if piece is None:
                    if not pieces:
                        raise PlanError(f"data.phases[{number}]: no source has both a weight and sequences")
                    return pieces
                length = self._piece_length(piece, room, left)
                if length == 0:
                    return pieces
                piece = dataclasses.replace(piece, length=length)
                pieces.append(piece)
                if length is None:
                    return pieces
                for slot, count in enumerate(_counts(piece, length)):
                    used[piece.streams[slot]] += count
                start += length
                left = None if left is None else left - length
        return pieces

    def _room(self, phase: int, used: Sequence[int]) -> list[int | None]:
        """Sequences each stream may still give; None: without end."""
        caps = self._caps[phase]
        return [
            max(0, int(caps[s.source] * s.sequences + 1e-9) - used[i]) if s.source in caps else None
            for i, s in enumerate(self._streams)
        ]

    def _piece(
        self, phase: int, start: int, weights: Mapping[int, float], used: tuple[int, ...], number: int
    ) -> _Piece | None:
        total = sum(weights.values())
        streams = tuple(i for i, w in sorted(weights.items()) if w > 0)
        if not streams:
            return None
        # Room for every rare stream beside the others, which keep at least 1.5 sequences a block.
        block = SMALLEST_BLOCK
        while block < 8 * len(streams):
            block *= 2
        shares = [max(1, round(weights[i] / total * ONE)) for i in streams]
        shares[shares.index(max(shares))] += ONE - sum(shares)
        key = key_of("block", self._seed, number)
        return _Piece(phase, start, None, streams, tuple(shares), used, block, key)

    def _piece_length(self, piece: _Piece, room: Sequence[int | None], left: int | None) -> int | None:
        """Sequences until a stream has given all it may, or `left`."""
        bounds = [room[i] for i in piece.streams]
        if all(bound is None for bound in bounds):
            return left

        def fits(blocks: int) -> bool:
            return all(b is None or n <= b for n, b in zip(piece.counts(blocks), bounds, strict=True))

        low, high = 0, 1
        while fits(high):
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        before, slots, ranks = _block_order(piece, low)
        length = low * piece.block
        for slot, rank in zip(slots.tolist(), ranks.tolist(), strict=True):
            bound = bounds[slot]
            if bound is not None and before[slot] + rank >= bound:
                break
            length += 1
        return length if left is None else min(length, left)

    def _block_order(self, piece: int, block: int) -> tuple[list[int], np.ndarray, np.ndarray]:
        return _block_order(self._pieces[piece], block)

    def _piece_counts(self, piece: int, length: int) -> list[int]:
        return _counts(self._pieces[piece], length)

    def _exhausted(self, wanted: int) -> str:
        held = ", ".join(
            f"`{source}` {size:,} sequences × at most {self._caps[-1].get(source, float('inf')):g} epochs"
            for source, size in sorted(self._sizes.items())
        )
        return (
            f"the data plan has {self.length:,} sequences, but sequence {wanted:,} is needed ({held}); train fewer "
            "steps, raise data.phases[…].max_epochs, add a phase, or pack more data"
        )


def _amendments(state: Mapping[str, object]) -> list[Skip]:
    return [Skip(**a) for a in typing.cast(list[dict[str, int]], state["amendments"])]


def skipped(state: Mapping[str, object]) -> int:
    """Sequences that the amendments of a checkpoint's plan leave out."""
    return sum(skip.count for skip in _amendments(state))


def check_extension(before: Sequence[PhaseConfig], now: Sequence[PhaseConfig], n: int) -> None:
    """Phases may be appended, and the one that is under way may end elsewhere, as long as nothing before index n of the
    plan changes; PlanError names the first that would."""
    start = 0
    for i, old in enumerate(before):
        if start >= n:
            return
        end = None if old.sequences is None else start + old.sequences
        what = f"data.phases[{i}] began at sequence {start:,}, and {n:,} are consumed"
        if i >= len(now) or dataclasses.replace(now[i], sequences=None) != dataclasses.replace(
            old, sequences=None
        ):
            raise PlanError(f"{what}, so it must stay, but for where it ends")
        length = now[i].sequences
        new_end = None if length is None else start + length
        if end != new_end and min(e for e in (end, new_end) if e is not None) < n:
            raise PlanError(f"{what}, so it must not end before that, nor go on where it has ended")
        if end is None:
            return
        start = end


def _block_order(piece: _Piece, block: int) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Sequences of each slot before the block; of each position in it, the slot and how many of that slot came before."""
    before = piece.counts(block)
    quotas = [after - n for after, n in zip(piece.counts(block + 1), before, strict=True)]
    slots = shuffle(np.repeat(np.arange(len(quotas)), quotas), key_of(piece.key, block))
    # A stable sort brings each stream's positions together, still in order.
    order = np.argsort(slots, kind="stable")
    firsts = np.cumsum([0, *quotas[:-1]])
    ranks = np.empty(len(slots), np.int64)
    ranks[order] = np.arange(len(slots)) - np.repeat(firsts, quotas)
    return before, slots, ranks


def _counts(piece: _Piece, length: int) -> list[int]:
    """Sequences of each of the piece's streams among its first `length`."""
    blocks, rest = divmod(length, piece.block)
    before, slots, _ = _block_order(piece, blocks)
    inside = np.bincount(slots[:rest], minlength=len(piece.streams))
    return [n + int(inside[slot]) for slot, n in enumerate(before)]
