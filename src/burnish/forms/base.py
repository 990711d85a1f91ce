"""What an output form says of itself, and what is handed to it to be written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from burnish.artifacts.card_words import CardWords
from burnish.artifacts.recipe import write_recipe
from burnish.errors import InputError, OutputError

if TYPE_CHECKING:
    from burnish.anatomy import LinearMap, Projection
    from burnish.artifacts.adapter import AdapterLayer
    from burnish.artifacts.bake import LayerGain, TensorEdit
    from burnish.artifacts.copying import FolderCopy
    from burnish.artifacts.direction import Enhancement
    from burnish.model.folder_plan import FolderPlan
    from burnish.options import OutputOptions
    from burnish.steps import Progress


@dataclass(frozen=True)
class Applied:
    """What was written."""

    out: Path
    form: str
    bytes: int
    gains: tuple[LayerGain, ...]
    coverage: str
    notes: tuple[str, ...] = ()  # what the user should know


@dataclass(frozen=True)
class WritePlan:
    """What would be written: the answer of --dry-run."""

    out: str
    form: str
    bytes: int
    projections: int
    layers: list[int]
    coverage: str


@dataclass(frozen=True)
class Expected:
    """What is known of an output before it is written."""

    maps: Sequence[Projection | LinearMap]  # those that change
    rank: int
    plan_bytes: int = 0  # of the enhancement's file; 0 where there is none
    enhancement: Enhancement | None = None  # where it is known already
    about: dict[str, Any] | None = None  # the record, where it is known already
    recipe: str | None = None
    measured: bool = False  # whether every edit is computed for an exact size


class Content(Protocol):
    """What an output holds: an enhancement, or a trained LoRA with or without one."""

    @property
    def enhancement(self) -> Enhancement | None:
        """The directions and gains in it."""

    def require(self, plan: FolderPlan) -> None:
        """Raises WrongModelError for another model's weights."""

    def expected(self, plan: FolderPlan, name: str) -> Expected:
        """What is known of it before it is written."""

    def about(self, name: str) -> dict[str, Any]:
        """The record, as JSON. name: the base model's, as the user calls it."""

    def tensor_edits(self, plan: FolderPlan) -> list[TensorEdit]:
        """The stored tensors that change. Raises QuantisedModelError, ModelError."""

    def adapter_layers(self, plan: FolderPlan) -> list[AdapterLayer]:
        """The same as factors of a LoRA."""

    def card(self, words: CardWords, base: dict[str, Any], gains: Sequence[LayerGain]) -> str:
        """The text of README.md. base: facts of the base model (`card.base_facts`)."""

    def write_beside(self, folder: Path, form: Form, job: Job) -> None:
        """Writes what makes another strength possible into an output folder."""


@dataclass(frozen=True)
class Job:
    """A content, the model it is of, and where it is written."""

    plan: FolderPlan
    content: Content
    output: OutputOptions
    name: str  # of the base model, as the user calls it
    copy: FolderCopy | None = None  # of this model to this output, started already
    progress: Progress | None = None
    recipe: str | None = None  # the command that makes the output again

    @property
    def base_model(self) -> str:
        """The base model for a loader: its hub id, or its folder's path."""
        return self.name if "/" in self.name and not Path(self.name).exists() else str(self.plan.folder)


class Form(ABC):
    """One form of output. Its module in this folder is called NAME_form, and holds one instance, `FORM`.

    Modules import nothing heavy at their top: the command line reads their help.
    """

    name: ClassVar[str]
    help: ClassVar[str]  # what is written, in a few words
    words: ClassVar[CardWords | None] = None  # of its card
    marker: ClassVar[str | None] = None  # the file by which an output folder is known; None: it is one file
    beside: ClassVar[bool] = False  # it is loaded beside the base model: without a gain there is nothing to write
    copies: ClassVar[bool] = False  # it starts as a copy of the model's folder, and a killed run is gone on with
    converts: ClassVar[bool] = True  # it is made from a folder, into which a `.gguf` file is converted first
    trains: ClassVar[bool] = False  # it can hold a trained LoRA

    @property
    def folder(self) -> bool:
        return self.marker is not None

    def source(self, plan: FolderPlan) -> Path:
        """What is read, and must not be written over."""
        return plan.folder

    def plan_file(self, out: Path) -> Path | None:
        """Where an output holds its enhancement, for `--with`; None where other commands cannot read it."""
        from burnish.artifacts.files import PLAN_FILE

        return out / PLAN_FILE if self.folder else None

    def hint(self, model: str, out: Path) -> str | None:
        """The command that uses an output."""
        return None

    def check(self, plan: FolderPlan, expected: Expected) -> None:
        """Raises QuantisedModelError or ModelError for tensors that this form cannot change."""
        return

    @abstractmethod
    def size(self, plan: FolderPlan, expected: Expected) -> int:
        """The bytes of an output."""

    @abstractmethod
    def write(self, job: Job) -> Applied:
        """Writes an output, after `planned`."""

    def require(self, job: Job) -> None:
        """Raises WrongModelError for the content of another model."""
        job.content.require(job.plan)

    def planned(self, plan: FolderPlan, output: OutputOptions, expected: Expected) -> WritePlan:
        """Checks everything that can fail before writing. Raises InputError, ModelError, QuantisedModelError, OutputError."""
        from burnish.artifacts.files import check_output, overlapping

        if self.beside and not expected.maps:
            raise InputError(f"Every gain is zero: form {self.name} would do nothing. Pass a factor other than 0.")
        self.check(plan, expected)
        size, source = self.size(plan, expected), self.source(plan)
        if overlapping(source, output.out):
            kind = "file" if source.is_file() else "folder"
            raise OutputError(f"{output.out} is, holds or lies in the model's own {kind} {source}. Pass another path.")
        check_output(output.out, size, overwrite=output.overwrite, resumable=self.copies)
        layers = sorted({item.layer for item in expected.maps})
        return WritePlan(str(output.out), self.name, size, len(expected.maps), layers, plan.anatomy.coverage())


def finish_folder(job: Job, form: Form, folder: Path, gains: Sequence[LayerGain]) -> None:
    """Writes the card, and what the content has beside the weights, into an output folder that is not in place yet."""
    from burnish.artifacts.card import CARD, base_facts, card_text
    from burnish.model.packaged import public_name

    assert form.words is not None
    base = base_facts(public_name(job.name), card_text(job.plan.folder))
    (folder / CARD).unlink(missing_ok=True)  # a copy may be a link
    (folder / CARD).write_text(job.content.card(form.words, base, gains), encoding="utf-8")
    job.content.write_beside(folder, form, job)
    write_recipe(folder, job.recipe)


def record_bytes(expected: Expected) -> int:
    """About the size of what lies beside the weights in an output folder: card, record and enhancement."""
    return expected.plan_bytes + 2000 + 300 * len(expected.maps)


def exact_gains(maps: Sequence[Projection | LinearMap], enhancement: Enhancement) -> tuple[LayerGain, ...]:
    """Of a form that is not rounded: what was asked is what it does."""
    from burnish.artifacts.bake import LayerGain

    table = enhancement.gains.tolist()
    return tuple(LayerGain(f"{m.path}.weight", m.layer, table[m.layer], table[m.layer]) for m in maps)
