"""`arriero quality`: labels of a Llama → a classifier of quality → a threshold, as one loop that can be resumed.

Steps: sample (stratified), label (ask a rater), train (fastText on words, and a linear head on embeddings), measure (on
hosts that were held out), threshold (by how much to keep), score (every document), report (one HTML page). `step=NAME`
runs one alone; a step whose settings and inputs have not changed is skipped, and no label is asked for twice.

Examples:
  arriero quality data.path=data/web output=quality label.base_url=local
  arriero quality data.path=data/web output=quality label.base_url=http://127.0.0.1:8000/v1 label.model=llama-3
  arriero quality data.path=data/web output=quality label.local_model=MODEL.gguf label.answer=digit
  arriero data … quality.classifier.model=quality/quality.bin        # the score as the signal quality.score
  arriero data … signals.extra=[quality/scores]                      # both scores, as scores.fasttext and scores.embedding
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from configs import edge
from configs.schema.data_verbs import QualityRun
from data_pipeline.packed.files import write_atomically


def run(config: QualityRun) -> int:
    """Run the steps; exit status 0."""
    from data_pipeline.quality import loop, prompt

    output = Path(config.output)
    prompt.rubric(config.label.rubric)
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / "config.yaml", edge.to_yaml(config))

    def say(text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    def report() -> str:
        from launch.report.quality import write

        return f"{write(output)}"

    steps = {
        "sample": lambda: loop.draw(config),
        "label": lambda: loop.ask(config, say),
        "train": lambda: loop.train(config),
        "measure": lambda: loop.measure(config),
        "threshold": lambda: loop.choose(config),
        "score": lambda: loop.score(config),
        "report": report,
    }
    for step in loop.STEPS if config.step == "all" else (config.step,):
        expected, done = loop.begin(config, step)
        if done:
            print(f"{step:<10} unchanged", flush=True)
            continue
        began = time.monotonic()
        said = steps[step]().splitlines()
        write_atomically(output / f"{step}.done", expected)
        print(f"{step:<10} {time.monotonic() - began:.1f} s  {said[0]}", *said[1:], sep="\n    ", flush=True)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb."""
    return edge.main("quality", QualityRun, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
