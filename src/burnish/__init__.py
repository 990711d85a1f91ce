"""Burnish brings out what a language model can already do."""

__version__ = "0.1.0"
