"""Raw documents → packed dataset: read, extract, annotate, decide, deduplicate, tokenize, pack.

Every stage is skipped when what it depends on has not changed. A run that was killed goes on where it stood, and the
output is the same bytes, on any number of workers.

Examples:
  arriero data recipe=web input='crawl/*.warc.gz' output=data/web
  arriero data output=data/mix 'sources=[{name: web, recipe: web, input: crawl}, {name: books, recipe: books, input: books}]'
  arriero data recipe=python_code input=environment output=data/code tokenizer.vocab_size=4096 pack.sequence_length=512
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from configs import edge
from configs.schema.pipeline import DataRun
from data_pipeline import workers
from data_pipeline.recipes import with_recipes


def run(config: DataRun) -> int:
    """Run the pipeline; exit status 0, or 1 with one line on stderr.

    Raises:
        ConfigError: a configuration that cannot work; nothing has been written then.
    """
    began = time.monotonic()
    print(f"data: {'planning' if config.dry_run else 'preparing'} {config.output}", flush=True)
    try:
        if not config.dry_run:
            workers.start(config)
        # Imported here, beside what workers import.
        from data_pipeline import driver

        return driver.run(config, began)
    except edge.ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head`: the command line ends without a word
        raise
    except (ValueError, OSError, RuntimeError) as error:
        # Each of these is raised with a whole sentence for the user; anything else keeps its traceback.
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the verb."""
    return edge.main("data", DataRun, run, __doc__ or "", argv, derive=with_recipes)


if __name__ == "__main__":
    sys.exit(main())
