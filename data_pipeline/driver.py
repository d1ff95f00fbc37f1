"""The driver of `arriero data`: plans a run, checks it, and runs its stages one after the other."""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from configs import edge, environment, folders
from configs.schema.pipeline import DataRun
from data_pipeline import collect, executors, flow, funnel, policy, progress, recipes, rejected
from data_pipeline import stage as staging
from data_pipeline.annotate.own import trial
from data_pipeline.mixture import resolve_mixture
from data_pipeline.packed import stream_name
from data_pipeline.packed.files import remove_leftovers, write_atomically
from data_pipeline.read import units as planning

SHOWN_REASONS = 5
"""Reasons of records set aside that the end of a run names."""


@dataclass(frozen=True)
class _Work:
    """What a run is going to do."""

    run_dir: Path
    plan: planning.Plan
    stages: list[staging.Stage]
    expected: dict[str, str]
    """Fingerprint of each stage."""
    not_run: list[str]
    """What is left out, and why."""
    reduced: list[str]
    """What is done in part, and why."""

    def not_whole(self) -> list[str]:
        """Lines that say what is left out or done in part."""
        return [
            *(f"  not run · {line}" for line in self.not_run),
            *(f"  in part · {line}" for line in self.reduced),
        ]


def run(config: DataRun, began: float) -> int:
    """Plan a run and run its stages; exit status.

    Args:
        began: when it began, by the monotonic clock.

    Raises:
        ConfigError: a configuration that cannot work; nothing has been written then.
        ValueError, OSError, RuntimeError: a sentence for the user.
    """
    sources = recipes.sources(config)
    run_dir = Path(config.output).expanduser().absolute()
    if run_dir.exists() and not run_dir.is_dir():
        raise ValueError(f"output {run_dir} is a file; expected a folder to be made or continued")
    if reason := folders.refusal(run_dir):
        raise edge.ConfigError(
            f"`output={config.output}` cannot be made or written: {reason}; choose another output"
        )
    own_signals, notes = trial.known(config.signals, run_dir)
    for source in sources:
        policy.check(source.recipe.filter, own_signals)
    for note in notes:
        print(f"  signals.functions: {note}", file=sys.stderr)
    executors.check(config.executor)
    plan = planning.plan(sources, config.unit_bytes, run_dir)
    rejected.check_keys(sources, plan.units)
    if config.stop_after is None:
        _check_packing(config, [source.name for source in sources])
    todo, not_run, reduced = flow.build(run_dir, config, plan)
    work = _Work(run_dir, plan, todo, staging.fingerprints(todo), not_run, reduced)
    if config.dry_run:
        _print_plan(work)
        return 0
    run_dir.mkdir(parents=True, exist_ok=True)
    with _alone(run_dir):
        return _stages(work, config, began)


def _stages(work: _Work, config: DataRun, began: float) -> int:
    run_dir, plan, todo, expected = work.run_dir, work.plan, work.stages, work.expected
    remove_leftovers(run_dir, alone=True)
    remove_leftovers(run_dir / "stages", alone=True)
    write_atomically(run_dir / "config.yaml", edge.to_yaml(config))
    environment.record(run_dir, devices=config.executor.workers or os.cpu_count() or 1)
    planning.save(plan.units, run_dir / "units.json")
    outputs = {run_dir / output for stage in todo for output in stage.outputs}
    for path in flow.owned(run_dir):
        if path not in outputs:  # of an earlier run with other steps
            staging.remove(path)
    print(planning.describe(plan.units))
    if plan.unknown:
        shown = "; ".join(f"{file}: {found}" for _, file, found in plan.unknown[:3])
        print(f"  {len(plan.unknown)} files are left out ({shown}{'; …' if len(plan.unknown) > 3 else ''})")
    for line in work.not_whole():
        print(line)
    executors.prepare(run_dir, todo, expected, config)
    states: dict[str, staging.State] = {}
    redone = False
    sizes = [u.bytes for u in plan.units]
    with progress.Page(run_dir, todo, sizes) as page:
        for i, stage in enumerate(todo, 1):
            state = staging.state(run_dir, stage, expected[stage.name])
            skipped = state.done
            if not skipped:
                redone = True
                page.begin(stage)
                state = executors.run(run_dir, stage, config, expected[stage.name], sizes)
            states[stage.name] = state
            page.end(stage, state, skipped)
            took = "unchanged" if skipped else f"{state.seconds:>7.1f} s"
            print(f"  {i:>2}/{len(todo)} {stage.name:<15} {took}  {_shown(state)}", flush=True)
            if stage.name == "read" and state.counts.get("read", 0) == state.counts.get("set_aside", 0) > 0:
                raise ValueError(_nothing_read(run_dir, state.counts["read"]))
            if stage.name == "final" and not state.counts.get("kept"):
                account = funnel.account(run_dir, plan, states, work.not_run, work.reduced)
                print(funnel.table(account))
                counts = states["read"].counts
                if 2 * counts.get("set_aside", 0) > counts.get("read", 0):
                    raise ValueError(_nothing_read(run_dir, counts["set_aside"]))
                raise ValueError(_nothing_kept(run_dir, account))
    verb = "made" if redone else "unchanged"
    if "final" not in states:
        print(f"{verb} up to stage {todo[-1].name} in {time.monotonic() - began:.1f} s: {run_dir}")
        return 0
    account = funnel.account(run_dir, plan, states, work.not_run, work.reduced)
    print(funnel.table(account))
    set_aside = sum(row["set_aside_documents"] for row in account.sources.values())
    if set_aside:
        print(f"{set_aside:,} records were set aside, see {run_dir / 'rejected'}:")
        for reason in rejected.reasons(run_dir)[:SHOWN_REASONS]:
            print(f"  {reason}")
    made = run_dir / ("packed" if "pack" in states else "kept")
    print(f"{verb} in {time.monotonic() - began:.1f} s: {made}")
    print(_next(run_dir, packed="pack" in states), flush=True)
    return 0


def _check_packing(config: DataRun, sources: Sequence[str]) -> None:
    """What the last stages would refuse, before the first one begins.

    Raises:
        ConfigError: a mixture of sources that the run does not have, no tokenizer at `tokenizer.path`, a vocabulary without
            room for bytes and special tokens; a source's name that cannot be a folder of the packed dataset.
    """
    try:
        _refuse_packing(config, sources)
    except ValueError as error:
        raise edge.ConfigError(str(error)) from error


def _refuse_packing(config: DataRun, sources: Sequence[str]) -> None:
    for name in sources:
        stream_name("train", name)
    resolve_mixture(config.mixture, dict.fromkeys(sources, 1))
    tokenizer = config.tokenizer
    if tokenizer.path is not None:
        from data_pipeline.tokenize import load_tokenizer
        from data_pipeline.tokenize.make import find_tokenizer

        source = find_tokenizer(Path(tokenizer.path))
        if source.name == "tokenizer.json":
            load_tokenizer(source.parent, tokenizer.eos)
    elif tokenizer.vocab_size < (least := 256 + tokenizer.n_special):
        raise ValueError(
            f"tokenizer.vocab_size {tokenizer.vocab_size} is too small: 256 bytes and tokenizer.n_special "
            f"{tokenizer.n_special} need at least {least}"
        )


def _nothing_read(run_dir: Path, set_aside: int) -> str:
    """Why there is no document where most records were set aside."""
    most = rejected.reasons(run_dir)[0]
    return (
        f"no document was kept: {set_aside:,} records were set aside, most of them for one reason: {most}; all are in "
        f"{run_dir / 'rejected'}"
    )


def _nothing_kept(run_dir: Path, account: funnel.Funnel) -> str:
    """Which rule dropped most of the documents where none was kept, with an example of it."""
    dropped: Counter[str] = Counter()
    for row in account.sources.values():
        dropped.update(row["dropped_documents"])
    most = "; "
    for rule, n in dropped.most_common(1):
        example = next(iter(account.samples.get(rule, [])), {})
        value = f", value {example['value']:g}" if isinstance(example.get("value"), float) else ""
        where = f" (such as {example['url'] or example['id']}{value})" if example else ""
        most = f": the rule {rule} dropped {n:,} of {dropped.total():,}{where}; "
    return (
        f"no document was kept, so there is nothing to pack{most}{run_dir / 'funnel.json'} holds samples of what each rule "
        "dropped"
    )


def _next(run_dir: Path, packed: bool) -> str:
    """What one does with a finished run, as commands."""
    commands = [["arriero", "report", f"data.path={run_dir}"]]
    if packed:
        where = f"data.path={run_dir / 'packed'}"
        commands += [["arriero", "train", where, "model=debug", "train.steps=100", "run.dir=runs/first"]]
    return "\n".join(["Next:", *(f"  {shlex.join(words)}" for words in commands)])


def _shown(state: staging.State) -> str:
    hidden = ("repaired_characters", "bytes")
    return ", ".join(
        f"{name} {value:,}"
        for name, value in state.counts.items()
        if value
        and name not in hidden
        and not name.startswith(("skipped", collect.REMOVED, policy.NOT_RUN, policy.ASKED))
    )


def _print_plan(work: _Work) -> None:
    print(planning.describe(work.plan.units))
    for _, file, found in work.plan.unknown:
        print(f"  left out: {file} ({found})")
    for line in work.not_whole():
        print(line)
    for i, stage in enumerate(work.stages, 1):
        done = staging.state(work.run_dir, stage, work.expected[stage.name]).done
        tasks = f"{stage.tasks} task{'s' if stage.tasks > 1 else ''}"
        print(
            f"  {i:>2}. {stage.name:<15} {tasks:>10}  {'done' if done else 'to do':<6} → {', '.join(stage.outputs)}"
        )


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Own the run directory: one driver at a time, and no task of a killed driver still writing."""
    with (run_dir / ".lock").open("a") as lock, (run_dir / ".tasks.lock").open("a") as tasks:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another `arriero data` works in {run_dir}; wait for it, or give another output"
            ) from None
        try:
            fcntl.flock(tasks, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for the tasks of a killed run to end", file=sys.stderr)
            fcntl.flock(tasks, fcntl.LOCK_EX)
        fcntl.flock(tasks, fcntl.LOCK_UN)
        yield
