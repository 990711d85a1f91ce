"""`burnish find`: prompts -> direction file."""

from dataclasses import asdict, dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.flags import Finding, Loading, Size
from burnish.cli.inputs import DryRun, Json, ModelName, Overwrite, PromptOptions, general_prompts, read_contrast
from burnish.cli.layer_by_layer import by_layer, estimated, in_words, open_layered
from burnish.cli.opening import expected, open_model
from burnish.cli.run import current_recipe
from burnish.layers import layer_index
from burnish.options import FindOptions, LayerOptions, ModelOptions, checked_factor

if TYPE_CHECKING:
    from burnish.artifacts.direction import Direction, Enhancement
    from burnish.checking import Check
    from burnish.model.estimating import Cost
    from burnish.model.forecast import Forecast, Work
    from burnish.model.model import Model
    from burnish.prompts import PromptSet
    from burnish.prompts.contrast import Contrast


def find(
    model: ModelName,
    *,
    out: Annotated[Path, Parameter(alias="-o", help="direction file to write (.safetensors)")],
    prompts: PromptOptions | None = None,
    finding: Finding = FindOptions(),
    loading: Loading = ModelOptions(),
    size: Size = LayerOptions(),
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Find the direction that separates two sets of prompts, and measure it on held-out prompts."""
    from burnish.artifacts.direction_file import stored_bytes
    from burnish.artifacts.files import check_output
    from burnish.finding import finding_work
    from burnish.model.processes import current
    from burnish.pipeline import open_plan, require_direction

    contrast = read_contrast(prompts or PromptOptions(), finding.position)
    check_output(out, 0, overwrite=overwrite)
    with console.waiting(f"Opening {model} (a first use fetches and converts it)"), current().one_ahead():
        plan = open_plan(model, loading, again=finding.force)
    layer_index(finding.layer_idx, plan.anatomy.layers)  # one that is not there is refused before any weight is loaded
    layered = open_layered(model, loading, size) if by_layer(plan, loading, size) else None
    cost = estimated(layered, [contrast], finding) if layered else None
    estimate = None
    if layered is None:
        estimate = expected(model, loading, lambda drawn: finding_work(drawn, contrast, finding), talk=not dry_run)
    if dry_run:
        planned = {
            "out": str(out),
            "form": "direction",
            "bytes": stored_bytes(plan.anatomy.layers, plan.anatomy.hidden_size),
        }
        show_plan({**planned, "coverage": plan.anatomy.coverage()}, cost, estimate, json=json)
        return
    if cost is not None:
        console.say(f"Layer by layer: {in_words(cost)}.")
    loaded = layered or open_model(model, loading)
    direction = run_find(loaded, contrast, finding)
    require_direction(direction, force=finding.force)
    if not current().first:
        return
    direction.save(out, overwrite=overwrite, recipe=current_recipe())
    if json:
        console.as_json({"out": str(out), **summary(direction)})
    else:
        show_direction(direction)
        console.data(f"Written: {out}")
    console.hint(f"burnish apply {model} {out} --enhancement-factor 0.5 -o OUT")


def run_find(model: "Model", contrast: "Contrast", finding: FindOptions) -> "Direction":
    """Finds with a progress bar, saying what the user should know about the inputs."""
    from burnish.finding import found_direction

    if not model.chat_template:
        console.say("This model has no chat template (a base model): prompts are read as they are.")
    for prompts in (contrast.enhance, contrast.normal):
        if len(prompts) < finding.instructions:
            console.say(
                f"'{prompts.name}' has {len(prompts)} prompts, fewer than --instructions {finding.instructions}: all are used."
            )
    with console.progress() as progress:
        direction = found_direction(model, contrast, finding, progress)
    if direction.report.largest_share[direction.layer] > 0.5:
        share = direction.report.largest_share[direction.layer]
        console.say(
            f"Warning: four coordinates carry {share:.0%} of this direction; it may measure activation size, not content."
        )
    return direction


def summary(direction: "Direction") -> dict[str, Any]:
    """The direction's numbers for --json."""
    return {
        "layer": direction.layer,
        "scope": direction.scope,
        "site": direction.site,
        "found": direction.found,
        "provenance": asdict(direction.provenance),
        "report": asdict(direction.report),
    }


def show_direction(direction: "Direction") -> None:
    """The direction's numbers in a few lines."""
    report, layer = direction.report, direction.layer
    cosines = [abs(c) for i, c in enumerate(report.cosine_with_chosen) if i != layer]
    console.data(str(direction))
    console.data(
        f"  split-half cosine {report.split_half_cosine[layer]:.3f}; mean |cosine| with the other layers "
        f"{sum(cosines) / max(1, len(cosines)):.2f}; four largest coordinates carry {report.largest_share[layer]:.0%}; "
        f"{report.held_out} held-out prompts"
    )


def show_plan(
    plan: dict[str, Any], cost: "Cost | None" = None, estimate: "Forecast | None" = None, *, json: bool
) -> None:
    """The answer of --dry-run. cost: of finding, where the model is run layer by layer; estimate: of the whole command."""
    if json:
        costs: dict[str, Any] = {} if cost is None else {"layer_by_layer": asdict(cost)}
        costs |= {} if estimate is None else {"estimate": asdict(estimate)}
        console.as_json({"dry_run": True, **plan, **costs})
        return
    if cost is not None:
        plan = {**plan, "layer by layer": in_words(cost)}
    if estimate is not None:
        plan = {**plan, "estimate": str(estimate)}
    for key, value in plan.items():
        console.data(f"{key}: {value:,}" if isinstance(value, int) else f"{key}: {value}")


@dataclass
class ContrastMethod:
    """Contrast directions with a factor, as published. `run` fills in the directions.

    check: damage that the method has measured itself, which this one does not.
    """

    contrasts: "list[tuple[float, Contrast]]"
    factor: float
    layers: str
    finding: FindOptions
    directions: "list[Direction]" = field(default_factory=list)
    check: "Check | None" = None

    @property
    def rank(self) -> int:
        """Directions a layer."""
        return len(self.contrasts)

    @property
    def strength(self) -> str:
        """How strong the edit will be, in words."""
        return f"factor {self.factor:g}"

    @property
    def edits(self) -> bool:
        """Whether any gain is other than zero, as far as is known before."""
        return bool(self.factor)

    @property
    def general(self) -> "PromptSet":
        """Prompts of the closing check."""
        from burnish.languages import language_of

        return general_prompts(language_of(self.contrasts[0][1].enhance.texts))

    def work(self, model: "Model") -> "Work":
        """What it takes, in tokens. model: its outline."""
        from burnish.finding import finding_work
        from burnish.model.forecast import together

        return together(finding_work(model, contrast, self.finding) for _, contrast in self.contrasts)

    def run(self, model: "Model", *, json: bool) -> "Enhancement":
        """The directions of all specialities as one enhancement, each with the factor times its weight."""
        from burnish.pipeline import require_direction

        parts = []
        for weight, contrast in self.contrasts:
            direction = run_find(model, contrast, self.finding)
            require_direction(direction, force=self.finding.force)
            parts.append(direction.enhancement(checked_factor(self.factor * weight), layers=self.layers))
            self.directions.append(direction)
        return reduce(lambda one, other: one.combined(other), parts)

    def summary(self) -> dict[str, Any]:
        """What was chosen, for --json."""
        listed = [summary(direction) for direction in self.directions]
        return {"direction": listed[0]} if len(listed) == 1 else {"directions": listed}

    def show(self) -> None:
        for direction in self.directions:
            show_direction(direction)

    def write(self, model: "Model", folder: Path) -> None:
        """Everything is in the plan and in the record of the output."""
