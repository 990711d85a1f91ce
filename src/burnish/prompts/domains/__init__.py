"""Domains: prompts, an expert system prompt, reference answers; packaged ones and the user's own. The general sets; the protect set."""

import json
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from burnish.errors import InputError
from burnish.languages import load_language
from burnish.prompts.domains.own import own_folder, own_names, read_about, read_rows
from burnish.prompts.prompt_files import Prompt, PromptSet

ROOT = files("burnish.prompts.domains")
PROTECT = "protect"
NONE = PromptSet("none", ())


@dataclass(frozen=True)
class Domain:
    """A speciality with a name: packaged, or the user's own."""

    name: str
    title: str
    language: str
    summary: str
    expert_system_prompt: str
    measures: tuple[str, ...]
    enhance: PromptSet
    held_out: PromptSet
    references_tune: PromptSet  # prompts with reference answers, for choosing
    references_report: PromptSet  # prompts with reference answers, for reporting
    asked: PromptSet = NONE  # the same tasks in the ways people really ask
    asked_held_out: PromptSet = NONE


@dataclass(frozen=True)
class GeneralSet:
    """Everyday prompts: to contrast with, and held out to measure damage on."""

    name: str
    title: str
    language: str
    prompts: PromptSet
    held_out: PromptSet


def domain_names() -> list[str]:
    """Packaged domains, then the user's own, each sorted."""
    packaged = packaged_names()
    return packaged + [name for name in own_names() if name not in packaged]


def packaged_names() -> list[str]:
    """Packaged domains, sorted."""
    return sorted(p.name for p in ROOT.iterdir() if p.is_dir() and (p / "domain.yaml").is_file())


def load_domain(name: str) -> Domain:
    """Loads a speciality with its prompts, reference answers and expert's prompt.

    Args:
        name: packaged, or made by `burnish domains add`.

    Returns:
        The domain.

    Raises:
        InputError: there is no such domain.
    """
    if name not in domain_names():
        raise InputError(f"There is no domain '{name}'. Pass one of: {', '.join(domain_names())}.")
    if name not in packaged_names():
        return _own_domain(name)
    folder = ROOT / name
    about = yaml.safe_load((folder / "domain.yaml").read_text(encoding="utf-8"))
    rows = _rows(folder, "references.jsonl")
    references = {
        split: PromptSet(
            f"{name} references", tuple(Prompt.of(r["prompt"], r["answer"]) for r in rows if r["split"] == split)
        )
        for split in ("tune", "report")
    }
    return Domain(
        name=name,
        title=about["title"],
        language=about["language"],
        summary=about["summary"],
        expert_system_prompt=about["expert_system_prompt"].strip(),
        measures=tuple(about.get("measures", ())),
        enhance=_lines(folder, "enhance.txt", name),
        held_out=_lines(folder, "held-out.txt", f"{name} held-out"),
        references_tune=references["tune"],
        references_report=references["report"],
        asked=_asked(folder, "asked.jsonl"),
        asked_held_out=_asked(folder, "asked-held-out.jsonl"),
    )


def _asked(folder: Traversable, file: str) -> PromptSet:
    """Rows of a prompt, or of a conversation that ends with one."""
    rows = (r.get("messages", [{"role": "user", "content": r.get("prompt")}]) for r in _rows(folder, file))
    prompts = tuple(Prompt(tuple((turn["role"], turn["content"]) for turn in turns)) for turns in rows)
    return PromptSet(f"{folder.name} {file.removesuffix('.jsonl')}", prompts)


def _own_domain(name: str) -> Domain:
    """Raises InputError for a file that was changed."""
    folder = own_folder(name)
    about = read_about(folder / "domain.yaml")
    rows = read_rows(folder / "references.jsonl")

    def prompts_in(file: str, label: str) -> PromptSet:
        return PromptSet(label, tuple(prompt for prompt, _ in read_rows(folder / file)))

    def references(split: str) -> PromptSet:
        return PromptSet(f"{name} references", tuple(prompt for prompt, half in rows if half == split))

    return Domain(
        name=name,
        title=about["title"],
        language=about["language"],
        summary=about["summary"],
        expert_system_prompt=about["expert_system_prompt"],
        measures=(),
        enhance=prompts_in("enhance.jsonl", name),
        held_out=prompts_in("held-out.jsonl", f"{name} held-out"),
        references_tune=references("tune"),
        references_report=references("report"),
    )


def load_general(language: str = "en") -> GeneralSet:
    """Loads the general prompts of a language.

    Args:
        language: a packaged one, such as `en`.

    Returns:
        Prompts, and others that are held out.

    Raises:
        InputError: there is no set in the language.
    """
    of = load_language(language)
    prompts = _lines(of.folder, "prompts.txt", of.general)
    return GeneralSet(
        of.general, of.title, language, prompts, _lines(of.folder, "held-out.txt", f"{of.general} held-out")
    )


def load_protect(*, category: str | None = None) -> PromptSet:
    """The prompts that an enhancement must leave alone.

    Args:
        category: one alone, such as `code`.

    Returns:
        The prompts, some with answers.
    """
    rows = (r for r in _rows(ROOT / PROTECT, "protect.jsonl") if category in (None, r["category"]))
    return PromptSet(PROTECT, tuple(Prompt.of(r["prompt"], r.get("answer")) for r in rows))


def _lines(folder: Traversable, file: str, name: str) -> PromptSet:
    text = (folder / file).read_text(encoding="utf-8")
    return PromptSet(name, tuple(Prompt.of(line.strip()) for line in text.split("\n") if line.strip()))


def _rows(folder: Traversable, file: str) -> list[dict[str, Any]]:
    text = (folder / file).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]
