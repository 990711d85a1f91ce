"""Domains of the user's own, kept by name beside the packaged ones: in the user's data folder, one folder each."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from burnish.errors import InputError
from burnish.languages import load_language
from burnish.paths import data_root
from burnish.prompts.prompt_files import Prompt, PromptSet

NAME = re.compile(r"[A-Za-z_][\w-]{0,59}")
EXPERT = "You are a leading expert in this kind of task. Answer as the best specialists in the field would."
FEWEST = 16  # prompts, and reference answers where there are any


def own_root() -> Path:
    return data_root() / "domains"


def own_names() -> list[str]:
    """Domains that the user added, sorted."""
    return sorted(p.parent.name for p in own_root().glob("*/domain.yaml"))


def own_folder(name: str) -> Path:
    """Where a domain of the user's own lies. Raises InputError for a name that no mix could hold."""
    if not NAME.fullmatch(name):
        raise InputError(f"'{name}' cannot be a domain's name. Use letters, digits, - and _, and begin with a letter.")
    return own_root() / name


def domain_files(
    name: str,
    enhance: PromptSet,
    *,
    title: str | None = None,
    language: str = "en",
    references: PromptSet | None = None,
    expert: str | None = None,
) -> dict[str, str]:
    """The files of a domain's folder, as text by name. A quarter of the prompts, at least 8, is held out.

    references: prompts with good answers, every other one of which is for reporting. Raises InputError for too few of either, and for
    another language than the everyday prompts are packaged in.
    """
    load_language(language)
    held, tune = split(enhance, references, seed=0)
    about = {
        "title": title or name,
        "language": language,
        "summary": f"Your own: {len(enhance)} prompts, {len(references) if references else 0} reference answers.",
        "expert_system_prompt": expert or EXPERT,
    }
    return {
        "domain.yaml": yaml.safe_dump(about, allow_unicode=True, sort_keys=False),
        "enhance.jsonl": _lines(_row(p) for p in tune.prompts),
        "held-out.jsonl": _lines(_row(p) for p in held.prompts),
        "references.jsonl": _lines(
            {**_row(p), "split": ("tune", "report")[i % 2]}
            for i, p in enumerate(references.prompts if references else ())
        ),
    }


def split(enhance: PromptSet, references: PromptSet | None, seed: int) -> tuple[PromptSet, PromptSet]:
    """(held out, to find with). Raises InputError for too few prompts, or references that are too few or have no answers."""
    if enhance.different < FEWEST:
        raise InputError(
            f"'{enhance.name}' holds {enhance.different} different prompts: {FEWEST} or more are needed, because a quarter of them is held out. Write "
            "more prompts; a factor set by hand needs none held out."
        )
    if references is not None and (references.different < FEWEST or any(p.answer is None for p in references.prompts)):
        raise InputError(
            f"'{references.name}' holds fewer than {FEWEST} different rows (8 to choose on, 8 to report on), or rows without an answer. References are "
            'rows such as {"prompt": "...", "answer": "..."}.'
        )
    return enhance.split(max(8, len(enhance) // 4), seed)


def read_about(path: Path) -> dict[str, str]:
    """What `domain_files` wrote of a domain. Raises InputError for a file that was changed."""
    try:
        about = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {key: str(about[key]) for key in ("title", "language", "summary", "expert_system_prompt")}
    except (OSError, yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _changed(path, error) from error


def _changed(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read as a file of a domain: {error}. Remove the domain and add it again.")


def read_rows(path: Path) -> list[tuple[Prompt, str]]:
    """(prompt, split) of every row that `domain_files` wrote. Raises InputError for a file that was changed."""
    rows = []
    try:
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line:
                row = json.loads(line)
                messages = tuple((turn["role"], turn["content"]) for turn in row["messages"])
                rows.append((Prompt(messages, row.get("answer"), row.get("rejected")), row.get("split", "")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _changed(path, error) from error
    return rows


def _row(prompt: Prompt) -> dict[str, Any]:
    row: dict[str, Any] = {"messages": [{"role": role, "content": content} for role, content in prompt.messages]}
    return row | {k: v for k, v in (("answer", prompt.answer), ("rejected", prompt.rejected)) if v is not None}


def _lines(rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
