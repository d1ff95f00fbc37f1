"""Sizing: a model, its training and its layout from one number, with the reasons."""
