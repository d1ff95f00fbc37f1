"""Signals of documents, one sidecar a module."""
