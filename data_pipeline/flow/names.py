"""What each stage does, in one line, and how long it takes beside the others: for the progress page and the report."""

from __future__ import annotations

DOES: dict[str, str] = {
    "read": "reads the input and extracts the main text of each page",
    "copies": "finds records that several input files hold",
    "signals": "measures each text: words, repetition, line ends, the rules of Gopher, C4 and FineWeb",
    "word_distribution": "counts words over all documents, for the outliers",
    "outliers": "measures how unusual the words of each document are",
    "language_model": "trains a classifier of languages",
    "language": "names the language of each document",
    "url_lists": "compiles the lists of blocked addresses",
    "url_signals": "looks up each address in the lists, and finds its domain",
    "nsfw_model": "trains a classifier of adult content",
    "nsfw": "scores adult content",
    "quality_labels": "asks a language model for the quality of a sample",
    "quality_model": "trains a classifier of quality on the labels",
    "quality": "scores the quality of each document",
    "privacy": "finds personal data and keys, and proposes masks",
    "privacy_domains": "counts personal data by domain",
    "evaluation_sets": "indexes the evaluation sets",
    "contamination": "finds passages of the evaluation sets in the documents",
    "contamination_report": "lists what was found of each evaluation set",
    "decide": "applies the policy: keep, flag or drop, by the rules' thresholds",
    "url": "keeps one document of each address",
    "exact": "keeps one of the documents with the same text",
    "line_hashes": "hashes the lines of each document",
    "line_counts": "finds lines that occur too often",
    "lines": "deletes such lines, and drops documents left too short",
    "sign": "computes the MinHash signature of each document",
    "bands": "finds candidate pairs of near-duplicates",
    "clusters": "joins candidate pairs to clusters",
    "sets": "collects the shingles of the candidates",
    "verify": "compares the candidates shingle by shingle",
    "sketches": "writes the signatures as datasketch reads them",
    "minhash": "keeps one document of each cluster of near-duplicates",
    "semantic_prepare": "chooses the projection of the embeddings",
    "semantic_embed": "embeds each document",
    "semantic_clusters": "groups the embeddings",
    "semantic_neighbours": "finds the nearest neighbours inside each group",
    "semantic": "keeps one of the documents that mean the same",
    "final": "joins all decisions, and writes the kept documents",
    "index": "writes the index of near-duplicates for later runs",
    "tokenizer": "trains the tokenizer, or copies the given one",
    "tokens": "encodes the kept documents",
    "pack": "fills sequences of equal length, and splits off the held-out documents",
}
OWN = "own_"
"""What the names of stages for signals of your own begin with."""


def does(name: str) -> str:
    """What a stage does; empty for a name that no stage has."""
    if name.startswith(OWN):
        return "writes a signal of your own: a file joined by id, or what a function says of each document"
    return DOES.get(name, "")


SHARES: dict[str, float] = {
    "read": 20.0,
    "tokens": 6.0,
    "tokenizer": 3.6,
    "signals": 2.5,
    "privacy": 0.6,
    "contamination": 0.5,
    "sign": 0.5,
    "line_hashes": 0.4,
    "outliers": 0.4,
    "pack": 0.4,
    "final": 0.3,
}
"""Seconds that stages took of one run of `recipe=web` on 750 pages with two workers, kernels compiled before. Only their
proportions matter: the time left is an estimate, and other recipes and processors have others."""
RARE = 0.2
"""The same for every stage that is not in `SHARES`."""
