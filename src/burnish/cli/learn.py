"""What `enhance` needs to learn from a teacher: who teaches, the run, and its answer on the terminal and in files."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING

from burnish.cli import console
from burnish.cli.inputs import PromptOptions
from burnish.cli.tune import AimOptions
from burnish.errors import InputError, NoDirectionError
from burnish.options import LearnOptions

if TYPE_CHECKING:
    from burnish.learning.learning import Learned
    from burnish.learning.subject import Subject
    from burnish.model.model import Model

NUMBERS = "learned.json"
ADVICE = (
    "What may help: another expert prompt, examples of good answers (--references), more --steps, a larger --budget. A system prompt "
    "that the model does not follow cannot teach it."
)


def read_expert(text: str | None) -> str | None:
    """The expert's prompt: the text itself, or what the file of that name holds. Raises InputError for a file without text."""
    if text is None:
        return None
    path = Path(text)
    looks_like_file = (
        len(text) < 300 and "\n" not in text and (path.suffix in (".txt", ".md") or "/" in text.split(" ")[0])
    )
    if len(text) < 300 and "\n" not in text and path.is_file():
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text. Save the expert's prompt as UTF-8.") from error
    elif looks_like_file:
        raise InputError(
            f"{path} does not exist. Pass --expert with the prompt itself, or with the path of a text file."
        )
    if not text.strip():
        raise InputError("The expert's prompt is empty. Write what the expert is and does.")
    return text.strip()


def read_subjects(prompts: PromptOptions, aim: AimOptions, seed: int) -> "list[Subject]":
    """Who teaches what, read and checked before any model is touched. Raises InputError, PromptFileError."""
    from burnish.learning.subject import expert_subject, subject_of
    from burnish.prompts import read_prompts
    from burnish.prompts.domains import load_domain
    from burnish.prompts.lint import hangul_share
    from burnish.tuning.material import own_domain

    if aim.pairs is not None or aim.judge_url is not None or aim.judge_model is not None:
        raise InputError("--pairs and --judge-... are aims of tuned gains. Pass --method gains with them.")
    expert = read_expert(aim.expert)
    if not prompts.domain and prompts.enhance is None and expert is not None:
        if aim.references is not None:
            raise InputError("--references needs the prompts it belongs to. Pass --enhance FILE with it.")
        return [expert_subject("expert", expert, "ko" if _korean(expert) else "en")]
    mix = prompts.mix()
    if mix is not None:
        if aim.references is not None:
            raise InputError("--references belongs to prompts of your own; a packaged domain has reference answers.")
        if expert is not None and len(mix.terms) > 1:
            raise InputError("--expert teaches one speciality, and the mix has several. Pass one --domain with it.")
        return [subject_of(load_domain(term.name), term.weight, expert=expert) for term in mix.terms]
    assert prompts.enhance is not None
    enhance = read_prompts(prompts.enhance)
    references = read_prompts(aim.references, answers=True) if aim.references else None
    language = "ko" if hangul_share(enhance) > 0.5 else "en"
    domain = own_domain(enhance, language=language, references=references, expert=expert, seed=seed)
    return [subject_of(domain, examples=expert is None and references is not None)]


def _korean(text: str) -> bool:
    from burnish.prompts import Prompt, PromptSet
    from burnish.prompts.lint import hangul_share

    return hangul_share(PromptSet("expert", (Prompt.of(text),))) > 0.5


def run_learn(model: "Model", subjects: "list[Subject]", options: LearnOptions) -> "Learned":
    """Learns with progress bars."""
    from burnish.learning.learning import learn

    if any(s.everywhere for s in subjects):
        console.say(
            "Note: without prompts of a speciality the expert's prompt is taught on every kind of question, everyday ones too; only the "
            "protect prompts (facts, code, JSON, refusals) are held. Pass --domain or --enhance FILE to keep it to one."
        )
    with console.progress() as progress:
        return learn(model, subjects, options, progress=progress)


def require_learned(found: "Learned") -> None:
    """Raises NoDirectionError when learning abstained."""
    if found.abstained:
        raise NoDirectionError(f"The model is better left alone: {found.reason}. All gains are zero. {ADVICE}")


def show_learned(found: "Learned", *, json: bool) -> None:
    """The table, or one JSON document."""
    from burnish.learning.tables import learned_summary, learned_table

    if json:
        console.as_json(learned_summary(found))
    else:
        console.data(learned_table(found) + "\n")


def write_learned(folder: Path, found: "Learned") -> None:
    """learned.json, and learned.md with the table and every answer that was read."""
    from burnish.learning.tables import learned_summary, learned_table, samples_table

    text = json_module.dumps(learned_summary(found), ensure_ascii=False, indent=2)
    (folder / NUMBERS).write_text(text + "\n", encoding="utf-8")
    (folder / "learned.md").write_text(f"{learned_table(found)}\n\n{samples_table(found)}\n", encoding="utf-8")
