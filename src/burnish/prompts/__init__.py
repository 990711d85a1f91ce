"""Prompts: readers, packaged domains, and a linter for pairs of sets."""

from burnish.prompts.prompt_files import Prompt, PromptSet, PromptSource, as_prompts, read_prompts

__all__ = ["Prompt", "PromptSet", "PromptSource", "as_prompts", "read_prompts"]
