"""Tokenizers and token shards: training, import, and text → token ids."""

from data_pipeline.tokenize.bpe import train_tokenizer
from data_pipeline.tokenize.encode import TokenShard, encode_shard
from data_pipeline.tokenize.folder import LoadedTokenizer, load_tokenizer
from data_pipeline.tokenize.make import import_tokenizer, make_tokenizer

__all__ = [
    "LoadedTokenizer",
    "TokenShard",
    "encode_shard",
    "import_tokenizer",
    "load_tokenizer",
    "make_tokenizer",
    "train_tokenizer",
]
