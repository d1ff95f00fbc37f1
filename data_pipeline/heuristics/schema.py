"""Names and definitions of the heuristic signals, without the code that computes them."""

from __future__ import annotations

_TOP_N_GRAMS, _DUPLICATE_N_GRAMS = (2, 3, 4), (5, 6, 7, 8, 9, 10)

SIGNALS: dict[str, dict[str, str]] = {
    "stats": {
        "bytes": "bytes of UTF-8",
        "chars": "characters",
        "words": "words that hold more than punctuation",
        "lines": "lines",
        "mean_line_length": "mean characters of the lines that hold more than white space",
        "max_line_length": "characters of the longest of them",
        "alphanumeric": "share of characters that are letters or digits",
        "letters": "share of characters that are letters",
        "digits": "share of characters that are digits",
        "spaces": "share of characters that are white space",
        "non_ascii": "share of characters outside of ASCII",
        "encoded": "share of characters in runs of 120 or more that look like base64, hexadecimal or escaped bytes",
        "replaced": "share of characters that are U+FFFD",
    },
    "gopher": {
        "n_words": "words that hold more than punctuation",
        "mean_word_length": "their mean length in characters",
        "hash_ratio": "`#` per word",
        "ellipsis_ratio": "ellipses per word",
        "bullet_lines": "share of lines that start with a bullet",
        "ellipsis_lines": "share of lines that end with an ellipsis",
        "alpha_words": "share of words that hold a letter, punctuation being words",
        "alpha_spaced": "the same of words as white space separates them",
        "n_stop_words": "different stop words of the document's language",
        "dup_line_frac": "repeated lines, as share of the lines",
        "dup_para_frac": "repeated paragraphs, as share of the paragraphs",
        "dup_line_char_frac": "characters of repeated lines, as share of the characters",
        "dup_para_char_frac": "characters of repeated paragraphs, as share of the characters",
        **{f"top_{n}_gram": f"characters of the most frequent {n}-gram, as share" for n in _TOP_N_GRAMS},
        **{f"dup_{n}_gram": f"characters of repeated {n}-grams, as share" for n in _DUPLICATE_N_GRAMS},
    },
    "c4": {
        "n_sentences": "sentences of the lines that are kept",
        "kept_lines": "share of lines that are kept",
        "kept_chars": "their share of the characters",
        "long_word_lines": "share of lines dropped for a long word",
        "no_terminal_punctuation": "share of lines dropped because they do not end like a sentence",
        "short_lines": "share of lines dropped because they have few words",
        "javascript_lines": "share of lines dropped because they mention JavaScript",
        "policy_lines": "share of lines dropped because they mention terms, privacy or cookies",
        "lorem_ipsum": "lines with `lorem ipsum`, of those long enough",
        "curly_brackets": "lines with `{`, of those long enough and without JavaScript",
        "third_longest_line": "characters of the third longest line; 0 with fewer than three",
    },
    "fineweb": {
        "line_punct_ratio": "share of lines that end with sentence punctuation",
        "short_line_ratio": "share of lines of at most 30 characters",
        "char_dup_ratio": "characters of repeated lines, as share of all but line feeds",
        "list_ratio": "line feeds per word",
        "n_sentences": "as in C4, without the rule on terminal punctuation",
        "kept_lines": "the same",
        "kept_chars": "the same",
        "lorem_ipsum": "the same",
        "curly_brackets": "the same",
    },
    "refinedweb": {
        "upper_lines": "share of lines mainly in upper case",
        "numeric_lines": "share of lines of digits without letters",
        "counter_lines": "share of lines such as `3 likes`",
        "single_word_lines": "share of lines of one word",
        "leftover_lines": "share of lines of at most ten words with a phrase of page furniture",
        "flagged_words": "words of all these lines, as share of the words",
    },
    "llama3": {
        "dup_ngram_coverage": "characters of words in 3-grams that their line repeats, as share of the words' characters",
        "repetitive_lines": "share of lines with a coverage above 60%",
        "repetitive_chars": "their share of the characters",
    },
    "hashes": {"content_hash": "xxh3-128 of the normalised text, 32 hexadecimal digits"},
}
"""Sidecar → column → definition. Shares are 0..1, and lines of shares hold more than white space where the paper says so."""

SIDECARS: dict[str, tuple[str, ...]] = {name: tuple(columns) for name, columns in SIGNALS.items()}
"""Sidecar → its columns, in order."""

EDITS = ("c4_lines", "fineweb_lines", "refinedweb_lines", "llama3_lines")
"""Sets of proposed edits: what the line rules of each paper would delete."""
