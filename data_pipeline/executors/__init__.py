"""datatrove's executors: this machine, Slurm, Ray. Each runs the same tasks and leaves the same files."""
