"""`burnish bench`: what the main job takes and does on a model, as a row to share; with --plan, a prediction from its geometry."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.flags import Loading
from burnish.cli.inputs import Json, ModelName
from burnish.cli.opening import open_model
from burnish.errors import InputError
from burnish.options import LearnOptions, ModelOptions


@Parameter(name="*", group="Plan")
@dataclass(frozen=True)
class PlanFlags:
    """What is predicted for."""

    plan: Annotated[
        bool, Parameter(help="predict from the geometry alone; of a hub id no weights are fetched", negative=())
    ] = False
    devices: Annotated[int, Parameter(help="with --plan: devices")] = 1
    device_memory: Annotated[float, Parameter(help="with --plan: GB of memory of each")] = 80.0
    teraflops: Annotated[
        float | None,
        Parameter(
            help="with --plan: what each does in matrix products; by default what this machine is measured to do"
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.devices < 1 or not self.device_memory > 0 or (self.teraflops is not None and not self.teraflops > 0):
            raise InputError(
                "--devices, --device-memory and --teraflops describe devices: each is above 0. Pass for example --devices 8 --device-memory 80."
            )
        if not self.plan and (self.devices, self.device_memory, self.teraflops) != (1, 80.0, None):
            raise InputError(
                "--devices, --device-memory and --teraflops belong to a prediction. Pass --plan with them, or leave them out to measure here."
            )


def bench(
    model: ModelName,
    *,
    domain: Annotated[str, Parameter(help="domain that is found and learnt")] = "creative-writing",
    steps: Annotated[int, Parameter(help="steps of the optimiser; fewer say less of the effect")] = LearnOptions.steps,
    planned: PlanFlags = PlanFlags(),
    loading: Loading = ModelOptions(),
    json: Json = False,
) -> None:
    """Measure the main job on a model and print a Markdown row to share: time, memory, effect, damage."""
    from burnish import benching

    options = LearnOptions(steps=steps)
    if planned.plan:
        devices = benching.Devices(planned.devices, planned.device_memory, planned.teraflops)
        with console.waiting(f"Opening {model} without its weights"):
            facts = benching.predicted(model, domain, options, devices, loading)
        text = benching.plan_table(facts)
    else:
        from burnish.learning.subject import subject_of
        from burnish.prompts.contrast import domain_contrast
        from burnish.prompts.domains import load_domain

        speciality = load_domain(domain)
        loaded = open_model(model, loading)
        with console.progress() as progress:
            facts = benching.measured(loaded, domain_contrast(speciality), subject_of(speciality), options, progress)
        text = benching.row(facts)
    console.as_json(facts) if json else console.data(text)
