"""`burnish tune`: the gains with the most effect within a budget of damage, for one speciality or several."""

import json as json_module
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.find import show_plan
from burnish.cli.flags import Loading, Tuning
from burnish.cli.inputs import ROWS, DryRun, Json, JudgeOptions, ModelName, Overwrite, PromptOptions, general_prompts
from burnish.cli.opening import expected, open_model
from burnish.cli.run import current_recipe
from burnish.errors import InputError, NoDirectionError
from burnish.options import ModelOptions, TuneOptions

if TYPE_CHECKING:
    from burnish.artifacts.direction import Enhancement
    from burnish.model.forecast import Work
    from burnish.model.model import Model
    from burnish.prompts import PromptSet
    from burnish.tuning.aims import Scorer, Speciality
    from burnish.tuning.tuning import Tuned

DIRECTIONS = 2  # a layer, for each speciality whose gains are tuned


@Parameter(name="*", group="Aim")
@dataclass(frozen=True)
class AimOptions(JudgeOptions):
    """What better means, besides a packaged domain's own answers."""

    references: Annotated[
        Path | None, Parameter(help=f"good answers: rows of prompt, answer, no rejected ({ROWS})")
    ] = None
    pairs: Annotated[Path | None, Parameter(help=f"own pairs: rows of prompt, chosen, rejected ({ROWS})")] = None
    expert: Annotated[
        str | None,
        Parameter(
            help="system prompt under which the model itself shows the speciality: the text, or a text file; without prompts it is learnt "
            "on every kind of question"
        ),
    ] = None


def tune(
    model: ModelName,
    *,
    out: Annotated[Path, Parameter(alias="-o", help="folder for the enhancement, tuning.json and tuning.md")],
    prompts: PromptOptions | None = None,
    aim: AimOptions | None = None,
    options: Tuning = TuneOptions(),
    loading: Loading = ModelOptions(),
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Choose the gains with the most effect within a budget of damage, or say that the model is better left alone."""
    from burnish.artifacts.files import check_output
    from burnish.pipeline import open_plan

    specialities = read_specialities(prompts or PromptOptions(), aim or AimOptions(), options.seed)
    check_output(out, 0, overwrite=overwrite)
    with console.waiting(f"Opening {model} (a first use fetches and converts it)"):
        check_window(options, open_plan(model, loading).anatomy.layers)
    way = GainsMethod(specialities, aim or AimOptions(), options)
    estimate = expected(model, loading, way.work, talk=not dry_run)
    if dry_run:
        show_plan({"out": str(out)}, estimate=estimate, json=json)
        return
    loaded = open_model(model, loading)
    tuned = run_tune(loaded, specialities, aim or AimOptions(), options)
    write_tuned(out, tuned, overwrite=overwrite)
    show_tuned(tuned, json=json, out=out)
    require_gains(tuned)
    console.hint(f"burnish apply {model} {out} -o OUT")


def check_window(options: TuneOptions, layers: int) -> None:
    """Raises LayerError before any weight is loaded."""
    from burnish.layers import layer_window

    layer_window(options.window, layers)


def read_specialities(prompts: PromptOptions, aim: AimOptions, seed: int) -> "list[Speciality]":
    """Reads and checks what is tuned for before any model is touched. Raises InputError, PromptFileError."""
    from burnish.prompts import read_prompts
    from burnish.prompts.domains import load_domain
    from burnish.tuning.aims import Speciality, own_domain

    aim.judge()
    pairs = read_prompts(aim.pairs) if aim.pairs else None
    mix = prompts.mix()
    if mix is not None:
        if aim.references is not None or aim.expert is not None:
            raise InputError("--references and --expert belong to prompts of your own; a packaged domain has both.")
        specialities = [Speciality(load_domain(term.name), term.weight) for term in mix.terms]
        return [Speciality(specialities[0].domain, specialities[0].weight, pairs), *specialities[1:]]
    assert prompts.enhance is not None
    enhance = read_prompts(prompts.enhance)
    references = read_prompts(aim.references, answers=True) if aim.references else None
    domain = own_domain(enhance, references=references, expert=aim.expert, seed=seed)
    if references is None and pairs is None and aim.expert is None and aim.judge_url is None:
        console.say(
            "Note: without --references, --pairs or --expert the only aim is the model's own answers under a general expert "
            f"system prompt ('{domain.expert_system_prompt}'), which flatters."
        )
    normal = read_prompts(prompts.normal) if prompts.normal else None
    return [Speciality(domain, 1.0, pairs, normal)]


def run_tune(model: "Model", specialities: "list[Speciality]", aim: AimOptions, options: TuneOptions) -> "Tuned":
    """Tunes with progress bars."""
    from burnish.tuning.tuning import tune as run

    scorer = _judge_scorer(specialities[0], aim)
    with console.progress() as progress:
        return run(model, domain=specialities, scorer=scorer, options=options, progress=progress)


def _judge_scorer(speciality: "Speciality", aim: AimOptions) -> "Scorer | None":
    judge = aim.judge()
    if judge is None:
        return None
    from burnish.evaluation.judge import scorer

    return scorer(judge, title=speciality.domain.title, summary=speciality.domain.summary)


def require_gains(tuned: "Tuned") -> None:
    """Raises NoDirectionError when tuning abstained."""
    from burnish.tuning.tuning import ADVICE

    if tuned.abstained:
        raise NoDirectionError(f"The model is better left alone: {tuned.reason}. All gains are zero. {ADVICE}")


def show_tuned(tuned: "Tuned", *, json: bool, out: Path | None = None) -> None:
    """The tables, or one JSON document."""
    from burnish.tuning.tuned_tables import tuned_summary, tuned_table

    if json:
        console.as_json({"out": None if out is None else str(out), **tuned_summary(tuned)})
    else:
        console.data(tuned_table(tuned) + "\n")


@dataclass
class GainsMethod:
    """Contrast directions with tuned gains (`cli/methods.py`)."""

    specialities: "list[Speciality]"
    aim: AimOptions
    options: TuneOptions
    tuned: "Tuned | None" = None
    check: None = None  # the closing check is made of the result
    edits: bool = True

    @property
    def rank(self) -> int:
        return DIRECTIONS * len(self.specialities)

    @property
    def strength(self) -> str:
        return f"gains chosen within {self.options.budget:g} nats per token"

    @property
    def general(self) -> "PromptSet":
        return general_prompts(self.specialities[0].domain.language)

    def work(self, model: "Model") -> "Work":
        from burnish.tuning.tuning_work import tuning_work

        return tuning_work(model, self.specialities, self.options)

    def run(self, model: "Model", *, json: bool) -> "Enhancement":
        self.tuned = run_tune(model, self.specialities, self.aim, self.options)
        if self.tuned.abstained:
            show_tuned(self.tuned, json=json)
        require_gains(self.tuned)
        return self.tuned.enhancement

    def summary(self) -> dict[str, Any]:
        from burnish.tuning.tuned_tables import tuned_summary

        return {} if self.tuned is None else {"tuned": tuned_summary(self.tuned)}

    def show(self) -> None:
        if self.tuned is not None:
            show_tuned(self.tuned, json=False)

    def write(self, model: "Model", folder: Path) -> None:
        """tuning.json and tuning.md."""
        assert self.tuned is not None
        write_numbers(folder, self.tuned)


def write_tuned(out: Path, tuned: "Tuned", *, overwrite: bool) -> None:
    """A folder with the enhancement (also one that changes nothing), the numbers and the tables."""
    from burnish.artifacts.files import PLAN_FILE, written
    from burnish.artifacts.recipe import write_recipe

    with written(out, overwrite=overwrite) as folder:
        folder.mkdir()
        tuned.enhancement.save(folder / PLAN_FILE)
        write_numbers(folder, tuned)
        write_recipe(folder, current_recipe())
    console.say(f"Written: {out}")


def write_numbers(folder: Path, tuned: "Tuned") -> None:
    """tuning.json and tuning.md."""
    from burnish.tuning.tuned_tables import tuned_summary, tuned_table

    summary: dict[str, Any] = tuned_summary(tuned)
    text = json_module.dumps(summary, ensure_ascii=False, indent=2)
    (folder / "tuning.json").write_text(text + "\n", encoding="utf-8")
    (folder / "tuning.md").write_text(tuned_table(tuned) + "\n", encoding="utf-8")
