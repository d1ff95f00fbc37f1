"""Hydra groups (YAML) and the frozen dataclasses they are resolved into."""
