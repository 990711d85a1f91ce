"""What `enhance` needs to learn from a teacher: who teaches, the run, and its answer on the terminal and in files."""

import json as json_module
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.inputs import ROWS, PromptOptions
from burnish.cli.run import HASHED
from burnish.errors import InputError, NoDirectionError
from burnish.options import LearnOptions

if TYPE_CHECKING:
    from burnish.artifacts.direction import Enhancement
    from burnish.checking import Check
    from burnish.learning.learning import Learned
    from burnish.learning.subject import Subject
    from burnish.model.forecast import Work
    from burnish.model.model import Model
    from burnish.prompts.domains import Domain

NUMBERS = "learned.json"
FEWEST_NORMAL = 16
ADVICE = (
    "What may help: another expert prompt, examples of good answers (--references), more --steps, a larger --budget. A system prompt "
    "that the model does not follow cannot teach it."
)
TEXT_ENDINGS = (".txt", ".md", ".text")  # of a file that holds an expert's prompt


@Parameter(name="*", group="Teacher")
@dataclass(frozen=True)
class TeacherOptions:
    """Who shows the speciality, besides a packaged domain's own expert."""

    expert: Annotated[
        str | None,
        Parameter(
            help="system prompt under which the model itself shows the speciality: the text, or a text file; without prompts it is learnt "
            "on every kind of question"
        ),
    ] = None
    references: Annotated[Path | None, Parameter(help=f"good answers: rows of prompt and answer ({ROWS})")] = None


def read_expert(text: str | None) -> str | None:
    """The expert's prompt: the text itself, or what the file of that name holds. Raises InputError for a file without text."""
    if text is None:
        return None
    if text.startswith(HASHED):
        raise InputError(
            "A recipe holds only the hash of an expert's prompt. Write the prompt, or the path of a file with it, in its place."
        )
    path = Path(text)
    if isfile(path):  # which, unlike Path.is_file, is not at a loss with a text too long to be a path
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text. Save the expert's prompt as UTF-8.") from error
    elif (len(text.split()) == 1 and (path.suffix or "/" in text)) or path.suffix.lower() in TEXT_ENDINGS:
        raise InputError(
            f"{path} does not exist or is no file. Pass --expert with the prompt itself, or with the path of a text file."
        )
    if not text.strip():
        raise InputError("The expert's prompt is empty. Write what the expert is and does.")
    return text.strip()


def read_subjects(prompts: PromptOptions, teacher: TeacherOptions, seed: int) -> "list[Subject]":
    """Who teaches what, read and checked before any model is touched. Raises InputError, PromptFileError."""
    from burnish.learning.subject import expert_subject, subject_of
    from burnish.prompts import read_prompts
    from burnish.prompts.domains import load_domain

    expert = read_expert(teacher.expert)
    if not prompts.domain and prompts.enhance is None and expert is not None:
        if teacher.references is not None or prompts.normal is not None:
            raise InputError(
                "--references and --normal go with prompts of a speciality. Pass --enhance FILE or --domain NAME with them."
            )
        return [expert_subject("expert", expert)]
    mix = prompts.mix()
    normal = read_prompts(prompts.normal) if prompts.normal else None
    if normal is not None and len(normal) < FEWEST_NORMAL:
        raise InputError(
            f"'{normal.name}' holds {len(normal)} prompts: {FEWEST_NORMAL} or more are needed, to hold, to choose the strength on and to report "
            "on. Write more, or leave out --normal."
        )
    if mix is not None:
        if teacher.references is not None:
            raise InputError("--references belongs to prompts of your own; a packaged domain has reference answers.")
        if expert is not None and len(mix.terms) > 1:
            raise InputError("--expert teaches one speciality, and the mix has several. Pass one --domain with it.")
        return [subject_of(load_domain(term.name), term.weight, expert=expert, normal=normal) for term in mix.terms]
    domain = read_own_domain(prompts, teacher, seed)
    if expert is None and teacher.references is None:
        console.say(
            f"Note: without --expert or --references the teacher is a general system prompt ('{domain.expert_system_prompt}'). One of your "
            "own would do more."
        )
    return [subject_of(domain, examples=expert is None and teacher.references is not None, normal=normal)]


def read_domains(prompts: PromptOptions, teacher: TeacherOptions, seed: int) -> "list[Domain] | None":
    """Packaged domains, or the user's files as one; None where neither is given. Raises InputError, PromptFileError."""
    from burnish.prompts.domains import load_domain

    if not prompts.domain and prompts.enhance is None:
        if teacher != TeacherOptions():
            raise InputError(
                "--references and --expert say more of prompts of your own. Pass --enhance FILE with them."
            )
        return None
    mix = prompts.mix()
    if mix is None:
        return [read_own_domain(prompts, teacher, seed)]
    if teacher != TeacherOptions():
        raise InputError("--references and --expert belong to prompts of your own; a packaged domain has both.")
    return [load_domain(term.name) for term in mix.terms]


def read_own_domain(prompts: PromptOptions, teacher: TeacherOptions, seed: int) -> "Domain":
    """Raises InputError, PromptFileError."""
    from burnish.learning.subject import domain_of_files
    from burnish.prompts import read_prompts

    assert prompts.enhance is not None
    references = read_prompts(teacher.references, answers=True) if teacher.references else None
    expert = read_expert(teacher.expert)
    return domain_of_files(read_prompts(prompts.enhance), references=references, expert=expert, seed=seed)


@dataclass
class LearnedMethod:
    """Directions and gains learnt from a teacher; its members as those of `ContrastMethod`."""

    subjects: "list[Subject]"
    options: LearnOptions
    learned: "Learned | None" = None
    general: None = None  # the damage is measured while learning
    edits: bool = True

    @property
    def rank(self) -> int:
        return self.options.directions

    @property
    def strength(self) -> str:
        return f"{self.rank} learnt directions a layer within {self.options.budget:g} nats per token"

    def work(self, model: "Model") -> "Work":
        from burnish.learning.learning_work import learning_work

        return learning_work(self.subjects, self.options)

    def run(self, model: "Model", *, json: bool) -> "Enhancement":
        """Raises NoDirectionError, after telling why, where the model is better left alone."""
        from burnish.learning.learning import learn

        if any(subject.everywhere for subject in self.subjects):
            console.say(
                "Note: without prompts of a speciality the expert's prompt is taught on every kind of question, everyday ones too; only the "
                "protect prompts (facts, code, JSON, refusals) are held. Pass --domain or --enhance FILE to keep it to one."
            )
        with console.progress() as progress:
            self.learned = learn(model, self.subjects, self.options, progress=progress)
        if self.learned.abstained:
            console.as_json(self.summary()) if json else self.show()
            raise NoDirectionError(
                f"The model is better left alone: {self.learned.reason}. All gains are zero. {ADVICE}"
            )
        return self.learned.enhancement

    @property
    def check(self) -> "Check | None":
        return None if self.learned is None else self.learned.check

    def summary(self) -> dict[str, Any]:
        from burnish.learning.learned_tables import learned_summary

        return {} if self.learned is None else {"learned": learned_summary(self.learned)}

    def show(self) -> None:
        from burnish.learning.learned_tables import learned_table

        if self.learned is not None:
            console.data(learned_table(self.learned) + "\n")

    def write(self, model: "Model", folder: Path) -> None:
        """learned.json; learned.md with the table and every answer that was read; the page."""
        from burnish.artifacts.files import written
        from burnish.explaining.acting import PROMPTS, acting
        from burnish.explaining.page import render_learned
        from burnish.learning.learned_tables import learned_summary, learned_table, samples_table

        assert self.learned is not None
        share = max(4, PROMPTS // len(self.subjects))
        held_out = [prompt for subject in self.subjects for prompt in subject.held_out.spread(share).prompts]
        acts = acting(model, self.learned.enhancement, held_out, self.subjects[0].language)
        files = {
            NUMBERS: json_module.dumps(learned_summary(self.learned), ensure_ascii=False, indent=2) + "\n",
            "learned.md": f"{learned_table(self.learned)}\n\n{samples_table(self.learned)}\n",
            "page.html": render_learned(self.learned, acts),
        }
        for name, text in files.items():
            with written(folder / name, overwrite=True) as partial:
                partial.write_text(text, encoding="utf-8")
        console.say(f"Page: {folder / 'page.html'}")
