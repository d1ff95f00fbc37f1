"""Signals of your own: Parquet files joined by id (`files`), and functions of a batch of documents (`functions`).

Both become sidecars, `signals/NAME/*.parquet`, that policies, `arriero whatif` and the report read like built-in ones. NAME
is that of the file (or folder) without its ending, or that of the function; a rule's signal is `NAME.COLUMN`.
"""
