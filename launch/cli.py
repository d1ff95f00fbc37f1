"""The command line: `arriero VERB [key=value …]`.

Each verb is a module with `main(argv) -> exit status`, imported only when it is asked for: `arriero --help` must
answer at once on a login node, and importing torch takes seconds.
"""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

VERBS: dict[str, tuple[str, str]] = {
    "data": ("data_pipeline.run", "raw documents → packed dataset"),
    "tokenizer": ("data_pipeline.tokenize.train", "train a tokenizer on text or JSONL files"),
    "classify": (
        "data_pipeline.classify.train",
        "train a quality, NSFW or language classifier and measure it",
    ),
    "whatif": ("data_pipeline.whatif", "what other thresholds, or another policy, would keep"),
    "trace": ("data_pipeline.lineage", "where a document went, by id, URL or text"),
    "remove": ("launch.remove", "take documents out of a packed dataset, and say which steps consumed them"),
    "train": ("pretrain.train", "one training run in this process group (start it with torchrun)"),
    "launch": (
        "launch.launch",
        "the same run under the supervisor: local torchrun or Slurm, restarted until done",
    ),
    "size": (
        "launch.size",
        "from a model's size or a compute budget: shape, rates, batch, length, layout, and why",
    ),
    "plan": (
        "launch.plan",
        "what a run would take: memory, communication and time a rank, without a cluster",
    ),
    "evaluate": ("pretrain.evaluate", "held-out loss by source, in nats per token and bits per byte"),
    "generate": ("pretrain.generate", "samples from a checkpoint"),
    "average": ("pretrain.average", "mean of several checkpoints → run directory with one"),
    "export": ("pretrain.export", "checkpoint → Hugging Face safetensors and tokenizer"),
    "import": ("pretrain.import_hf", "Hugging Face Llama → run directory whose weights can be continued"),
    "report": ("launch.report", "one self-contained HTML page of a run and its data"),
}

# Exit statuses, the same for every verb and for a rank under torchrun.
EXIT_ERROR = 1
EXIT_CONFIG = 2
EXIT_PREEMPTED = 75  # EX_TEMPFAIL: checkpointed because it was told to stop; the same command goes on
EXIT_INTERRUPTED = 130

# Distribution extra that provides a package, for the message when it is missing.
EXTRAS = {
    "data": "brotli charset_normalizer datatrove faiss fasttext httpx lxml numba pyarrow regex xxhash zstandard",
    "track": "wandb trackio tensorboard",
    "report": "plotly",
    "hf": "transformers",
}
ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("configs", "data_pipeline", "pretrain", "launch")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit status (0 done, 1 failed, 2 wrong configuration, 130 interrupted)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else EXIT_CONFIG
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"arriero {version('arriero')}")
        return 0
    verb, *rest = words
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.4)
        hint = f"did you mean `{near[0]}`?" if near else f"verbs: {', '.join(VERBS)}"
        print(f"error: unknown verb `{verb}`; {hint}", file=sys.stderr)
        return EXIT_CONFIG
    return guarded(lambda: importlib.import_module(VERBS[verb][0]).main(rest))


def usage() -> str:
    """The text of `arriero --help`."""
    verbs = "\n".join(f"  {name:<11}{does}" for name, (_, does) in VERBS.items())
    return (
        "usage: arriero VERB [key=value …]\n\n"
        "From raw crawl to an evaluated Llama-class base model.\n\n"
        f"{verbs}\n\n"
        "arriero VERB --help     what it does, examples, and every key\n"
        "arriero VERB --cfg job  the configuration that the overrides make\n"
        "arriero --version"
    )


def guarded(call: Callable[[], int | None]) -> int:
    """Run a verb and turn errors meant for the user into one line and an exit status.

    A ConfigError ends with status 2. An OSError, a missing optional package, and a ValueError or RuntimeError that
    our own code raised end with status 1. Anything else is a programming error and keeps its traceback.
    """
    try:
        return call() or 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone: not an error. Python would complain again at exit.
        sys.stderr.close()
        return EXIT_ERROR
    except Exception as error:
        line, status = _explain(error)
        if line is None:
            traceback.print_exc()
        else:
            print(f"error: {line}", file=sys.stderr)
        return status


def _explain(error: Exception) -> tuple[str | None, int]:
    from configs.edge import ConfigError

    if isinstance(error, ConfigError):
        return str(error), EXIT_CONFIG
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").split(".")[0]
        extra = next((e for e, names in EXTRAS.items() if package in names.split()), None)
        if extra is not None:
            return f"this needs the package `{package}`: pip install 'arriero[{extra}]'", EXIT_ERROR
        return None, EXIT_ERROR
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
