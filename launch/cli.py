"""The command line: `arriero VERB [key=value …]`.

Each verb is a module with `main(argv) -> exit status`, imported only when it is asked for. Help is printed without
importing it: a docstring is read from the module's source and the keys from the schema, because importing torch or
pyarrow takes seconds and a login node may have neither.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from configs.output import accept_all_text, end_with_reader


class Verb(NamedTuple):
    module: str
    """Module with `main`; its docstring is the verb's help."""
    schema: str
    """Dataclass of its configuration, `module.Class`; `configs/NAME.yaml` holds its values."""
    does: str
    """One line for `arriero --help`."""
    words: str = ""
    """Key of a list that takes the words without `=`."""
    loads: str = ""
    """What takes a large part of a second before the verb can print a line of its own, for a first line."""


VERBS: dict[str, Verb] = {
    "data": Verb("data_pipeline.run", "configs.schema.pipeline.DataRun", "raw documents → packed dataset"),
    "tokenizer": Verb(
        "data_pipeline.tokenize.train",
        "configs.schema.data_verbs.TokenizerRun",
        "train a tokenizer on text or JSONL files",
    ),
    "classify": Verb(
        "data_pipeline.classify.train",
        "configs.schema.data_verbs.ClassifyRun",
        "train a quality, NSFW or language classifier and measure it",
    ),
    "quality": Verb(
        "launch.quality",
        "configs.schema.data_verbs.QualityRun",
        "labels of a Llama → a classifier of quality → a threshold, as one loop",
    ),
    "whatif": Verb(
        "data_pipeline.whatif",
        "configs.schema.data_verbs.WhatifRun",
        "what other thresholds, or another policy, would keep",
    ),
    "trace": Verb(
        "data_pipeline.lineage",
        "configs.schema.data_verbs.TraceRun",
        "where a document went, by id, URL or text; what is near a text",
        loads="reading the dataset",
    ),
    "remove": Verb(
        "launch.remove",
        "configs.schema.data_verbs.RemoveRun",
        "take documents out of a packed dataset, and say which steps consumed them",
    ),
    "convert": Verb(
        "data_pipeline.convert",
        "configs.schema.data_verbs.ConvertRun",
        "packed dataset ↔ token files of datatrove, nanotron, Megatron, OLMo-core, Parquet",
    ),
    "train": Verb(
        "pretrain.train",
        "configs.schema.train.TrainRun",
        "one training run in this process group (start it with torchrun)",
        loads="loading torch",
    ),
    "launch": Verb(
        "launch.launch",
        "configs.schema.train.LaunchRun",
        "the same run under the supervisor: local torchrun or Slurm, restarted until done",
    ),
    "size": Verb(
        "launch.size",
        "configs.schema.train.PlanRun",
        "from a model's size or a compute budget: shape, rates, batch, length, layout, and why",
    ),
    "plan": Verb(
        "launch.plan",
        "configs.schema.train.PlanRun",
        "what a run would take: memory, communication and time a rank, without a cluster",
    ),
    "evaluate": Verb(
        "pretrain.evaluate",
        "configs.schema.train.EvaluateRun",
        "held-out loss by source, in nats per token and bits per byte",
    ),
    "generate": Verb("pretrain.generate", "configs.schema.train.GenerateRun", "samples from a checkpoint"),
    "average": Verb(
        "pretrain.average",
        "configs.schema.train.AverageRun",
        "mean of several checkpoints → run directory with one",
    ),
    "export": Verb(
        "pretrain.export",
        "configs.schema.train.ExportRun",
        "checkpoint → Hugging Face safetensors and tokenizer",
    ),
    "import": Verb(
        "pretrain.import_hf",
        "configs.schema.train.ImportRun",
        "Hugging Face Llama → run directory whose weights can be continued",
    ),
    "compare": Verb(
        "launch.compare",
        "configs.schema.train.CompareRun",
        "several runs side by side: configuration, curves, final losses, speed",
        words="runs",
    ),
    "report": Verb(
        "launch.report",
        "configs.schema.train.ReportRun",
        "one self-contained HTML page of a run and its data",
    ),
}

# Exit statuses, the same for every verb and for a rank under torchrun.
EXIT_ERROR = 1
EXIT_CONFIG = 2
EXIT_PREEMPTED = 75  # EX_TEMPFAIL: checkpointed because it was told to stop; the same command goes on
EXIT_LOST_PEER = 69  # EX_UNAVAILABLE: a rank that lost another one, whose end is the cause
EXIT_BAD_NODE = 71  # EX_OSERR: the GPUs of a node are not fit for training; nothing was started there
EXIT_INTERRUPTED = 130

# Distribution extra that provides a package, for the message when it is missing.
EXTRAS = {
    "data": "babel backports brotli chardet datasketch datatrove faiss fasttext httpx isal justext lxml lz4 "
    "numba publicsuffixlist pyarrow pycld2 regex scipy threadpoolctl webencodings xxhash",
    "track": "wandb trackio tensorboard",
    "report": "plotly",
    "hf": "transformers",
    "tokenizers": "sentencepiece tiktoken",
}
ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("configs", "data_pipeline", "pretrain", "launch")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit status (0 done, 1 failed, 2 wrong configuration, 130 interrupted)."""
    words = list(sys.argv[1:] if argv is None else argv)
    status = guarded(lambda: _run(words))
    if argv is None and (distributed := sys.modules.get("pretrain.distributed")) is not None:
        distributed.end(status)  # the verb may have had a process group
    return status


def _run(words: Sequence[str]) -> int:
    from configs import folders

    folders.require_working_folder()
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else EXIT_CONFIG
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"arriero {version('arriero')}")
        return 0
    verb, *rest = words
    if verb in ("-sc", "--shell-completion"):
        return _complete(rest)
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.4)
        hint = f"did you mean `{near[0]}`?" if near else f"verbs: {', '.join(VERBS)}"
        print(f"error: unknown verb `{verb}`; {hint}", file=sys.stderr)
        return EXIT_CONFIG
    if "--help" in rest or "-h" in rest:
        print(verb_help(verb))
        return 0
    from configs import edge

    edge.require_linux()  # before the verb's own imports, which may fail elsewhere
    if VERBS[verb].words:
        rest = edge.gather(VERBS[verb].words, rest)
    if edge.shows_only(rest):
        return edge.main(verb, _schema(verb), lambda config: 0, "", rest)
    # A mistake is told before the verb's packages are imported.
    edge.check(verb, _schema(verb), rest)
    if VERBS[verb].loads and not any(word.startswith("-") for word in rest):
        print(f"{verb}: {VERBS[verb].loads}", flush=True)
    return importlib.import_module(VERBS[verb].module).main(rest) or 0


def _schema(name: str) -> type:
    module, _, schema = VERBS[name].schema.rpartition(".")
    return getattr(importlib.import_module(module), schema)


def _complete(rest: Sequence[str]) -> int:
    """Shell completion (`eval "$(arriero -sc install=bash)"`): of the verb's name by us, of its keys by Hydra."""
    from configs import edge

    line = os.environ.get("COMP_LINE", "")
    program, *words = line.split() or [""]
    if rest and rest[0].startswith("query="):
        if not words or (len(words) == 1 and not line.endswith(" ")):
            print(" ".join(name for name in VERBS if not words or name.startswith(words[0])))
            return 0
        if words[0] not in VERBS:
            return 0
        os.environ["COMP_LINE"] = f"{program} {line.partition(words[0])[2].lstrip()}"
    verb = words[0] if words and words[0] in VERBS else "train"
    return edge.main(verb, _schema(verb), lambda config: 0, "", ["-sc", *rest])


def usage() -> str:
    """The text of `arriero --help`."""
    verbs = "\n".join(f"  {name:<11}{verb.does}" for name, verb in VERBS.items())
    return (
        "usage: arriero VERB [key=value …]\n\n"
        "From raw crawl to an evaluated Llama-class base model.\n\n"
        f"{verbs}\n\n"
        "arriero VERB --help     what it does, examples, and every key\n"
        "arriero VERB --cfg job  the configuration that the overrides make\n"
        "arriero -sc install=bash, zsh or fish  what makes the shell complete verbs and keys: eval it\n"
        "arriero --version"
    )


def verb_help(name: str) -> str:
    """The text of `arriero NAME --help`: the docstring of the verb's module, then its keys."""
    from configs import edge

    verb = VERBS[name]
    path = ROOT / verb.module.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    doc = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")), clean=False) or ""
    return edge.help_text(name, _schema(name), doc)


def guarded(call: Callable[[], int | None]) -> int:
    """Run a verb and turn errors meant for the user into one line and an exit status.

    A ConfigError ends with status 2. An OSError, a missing optional package, and a ValueError or RuntimeError that
    our own code raised end with status 1. Anything else is a programming error and keeps its traceback. A reader of
    the output that has gone (`| head`) is no error to report.
    """
    accept_all_text()
    try:
        return end_with_reader(call)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        line, status = _explain(error)
        if line is None:
            traceback.print_exc()
        else:
            print(f"error: {line}", file=sys.stderr)
        return status


def _explain(error: Exception) -> tuple[str | None, int]:
    from configs.edge import ConfigError
    from data_pipeline.packed.files import disk_full_message, is_disk_full

    if isinstance(error, ConfigError):
        return str(error), EXIT_CONFIG
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").split(".")[0]
        extra = next((e for e, names in EXTRAS.items() if package in names.split()), None)
        if extra is not None:
            return f"this needs the package `{package}`: pip install 'arriero[{extra}]'", EXIT_ERROR
        return None, EXIT_ERROR
    if isinstance(error, OSError) and is_disk_full(error):
        return disk_full_message(error.filename or Path.cwd()), EXIT_ERROR
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        # A copy of a folder reports every file that failed, as tuples; the first says why.
        source, target, reason = error.args[0][0]
        return f"{source} could not be copied to {target}: {reason}", EXIT_ERROR
    if isinstance(error, OSError):
        if error.filename is not None and error.strerror:
            return f"{error.filename}: {error.strerror}", EXIT_ERROR
        return str(error), EXIT_ERROR
    ours = type(error).__module__.split(".")[0] in PACKAGES and isinstance(error, (ValueError, RuntimeError))
    if ours or (type(error) in (ValueError, RuntimeError) and _raised_by_us(error)):
        return str(error), EXIT_ERROR
    return None, EXIT_ERROR


def _raised_by_us(error: Exception) -> bool:
    """Whether our own code raised it: then its message is a sentence for the user, and not a library's surprise."""
    frames = traceback.extract_tb(error.__traceback__)
    source = Path(frames[-1].filename).resolve() if frames else Path("/")
    return any(source.is_relative_to(ROOT / package) for package in PACKAGES)


if __name__ == "__main__":
    sys.exit(main())
