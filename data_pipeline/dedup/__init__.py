"""Deduplication: exact, MinHash-LSH, semantic. Each step writes one decision a document."""
