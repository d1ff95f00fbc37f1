"""Published heuristic filters as signals: Gopher, C4, FineWeb, RefinedWeb, Llama 3, one module each.

A module holds its rules, their thresholds and where those are published. Rules about single lines are compiled; `lines`
applies them all in one pass over a batch. Rules about documents are signals, whose thresholds are in policies
(`configs/filter/NAME.yaml`). `annotate` writes the signals and proposed edits of a shard.
"""
