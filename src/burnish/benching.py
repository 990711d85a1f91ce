"""What the main job takes and does on a model, as a row to share; and a prediction from a model's geometry alone."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from burnish import __version__
from burnish.artifacts.hub import fetch, hub_id
from burnish.finding import finding_work, found_direction
from burnish.learning.learning import Learned, learn
from burnish.learning.learning_work import learning_work
from burnish.learning.subject import Subject, subject_of
from burnish.model.device import accelerator
from burnish.model.diagnosis import device_name, processor_name
from burnish.model.forecast import Work, operations, products_a_second
from burnish.model.loading import load_tokenizer
from burnish.model.model import Model
from burnish.model.skeleton import anatomy_of, skeleton, text_config
from burnish.model.source import resolve
from burnish.options import FindOptions, LearnOptions, ModelOptions
from burnish.pipeline import export
from burnish.prompts.contrast import Contrast, domain_contrast
from burnish.prompts.domains import load_domain
from burnish.steps import Progress, lasting

EVERY = 0.02  # seconds between two looks at the memory
OUTLINE = ("*.json", "*.model", "*.jinja", "tokenizer*")  # a model's files without its weights
# Numbers of the hidden size that a block keeps of a token for the way back, beside three of the feed-forward size.
HELD = 16
PREDICTED = (
    "Predicted: matrix products of every pass at the stated rate with the share that attention, norms and the softmax add; weights; what a step "
    "keeps for its backward pass. Not predicted: loading, reading weights for every decoded token, exchange between devices; a mixture of experts is "
    "counted as if every token met every expert."
)


@dataclass(frozen=True)
class Devices:
    """What a prediction is for."""

    count: int
    memory: float  # GB of each
    teraflops: float | None  # of each, in matrix products; None: what this machine is measured to do


@dataclass
class Stages:
    """Seconds and the peak of memory of one stage after the other, weights included."""

    device: Any
    taken: dict[str, dict[str, float]] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Memory is what the process holds, looked at all the time; on a CUDA device also what it has allocated there."""

        process, ended = psutil.Process(), threading.Event()
        peak = [process.memory_info().rss]

        def look() -> None:
            while not ended.wait(EVERY):
                peak[0] = max(peak[0], process.memory_info().rss)

        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        thread = threading.Thread(target=look, name="burnish-memory", daemon=True)
        thread.start()
        started = time.perf_counter()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        self.taken[name] = {"seconds": time.perf_counter() - started, "bytes": max(peak[0], process.memory_info().rss)}
        if cuda:
            self.taken[name]["device_bytes"] = torch.cuda.max_memory_allocated(self.device)


@contextmanager
def fresh_cache(folder: Path) -> Iterator[None]:
    """What earlier runs have answered is not looked at."""
    name = "BURNISH_CACHE"
    before = os.environ.get(name)
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def measured(
    model: Model, contrast: Contrast, subject: Subject, options: LearnOptions, progress: Progress | None = None
) -> dict[str, Any]:
    """Finds a direction, learns, and writes a model into a temporary folder; answers of earlier runs are not used."""
    stages = Stages(model.device)
    with tempfile.TemporaryDirectory() as folder:
        with fresh_cache(Path(folder, "cache")):
            with stages.stage("find"):
                direction = found_direction(model, contrast, FindOptions(), progress)
            with stages.stage("enhance"):
                learned = learn(model, [subject], options, progress=progress)
        edit = direction.enhancement() if learned.abstained else learned.enhancement
        with stages.stage("write"):
            written = export(edit, Path(folder, "model"), model=model.folder, progress=progress)
    return {
        "model": name_to_share(model.name),
        "dtype": learned.dtype,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "domain": subject.name,
        "steps": options.steps,
        "stages": stages.taken,
        "written_bytes": written.bytes,
        **_learnt(learned),
        "burnish": __version__,
        "processor": processor_name() if model.device.type == "cpu" else device_name(model.device.type),
        "threads": torch.get_num_threads(),
    }


def name_to_share(model: str) -> str:
    """A model's name without the folders of this machine."""
    return Path(model).name if Path(model).expanduser().exists() else model


def _learnt(learned: Learned) -> dict[str, Any]:
    """Effect and damage where something was learnt."""
    if learned.abstained:
        return {"abstained": True, "effect": None, "kl": None}
    return {"abstained": False, "effect": asdict(learned.taught[0].removed), "kl": learned.damage.kl.mean}


def row(facts: dict[str, Any]) -> str:
    """A Markdown table of one row."""
    heads = ["model", "find", f"enhance ({facts['steps']} steps)", "write", "distance to the teacher removed", "KL"]
    cells = [f"{facts['model']}, {facts['parameters'] / 1e9:.2g} billion, {facts['dtype']}"]
    for name in ("find", "enhance", "write"):
        stage = facts["stages"][name]
        memory = stage.get("device_bytes", stage["bytes"])
        cells.append(f"{stage['seconds']:.1f} s, {memory / 1e9:.2f} GB")
    effect = facts["effect"]
    cells += (
        ["left alone", ""]
        if effect is None
        else [f"{effect['mean']:.2f} [{effect['low']:.2f}, {effect['high']:.2f}]", f"{facts['kl']:.4f}"]
    )
    heads += ["domain", "burnish", "on"]
    cells += [facts["domain"], facts["burnish"], f"{facts['processor']}, {facts['threads']} threads"]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), cells))


def geometry(model: str, loading: ModelOptions) -> Model:
    """The model without weights, which need not be there. Raises ModelNotFoundError, HubError, ModelError."""
    named = hub_id(Path(model).expanduser())
    folder = resolve(model) if named is None else fetch(named[0], loading.revision, OUTLINE)
    network, config = skeleton(folder, loading)
    return Model(model, folder, network, load_tokenizer(folder, loading), anatomy_of(network, config))


def predicted(
    model: str, domain: str, options: LearnOptions, planned: Devices, loading: ModelOptions
) -> dict[str, Any]:
    """Time and memory of finding and learning on some devices, from the model's geometry and the prompts' lengths."""
    drawn = geometry(model, loading)
    stated = getattr(drawn.network.config, "dtype", None) or torch.float32
    dtype = stated if loading.dtype == "auto" else getattr(torch, loading.dtype)
    rate = planned.teraflops or products_a_second(dtype, accelerator() or "cpu") / 1e12
    speciality = load_domain(domain)
    finding = finding_work(drawn, domain_contrast(speciality), FindOptions())
    subjects = [subject_of(speciality)]
    learning = learning_work(subjects, options)
    twice = learning_work(subjects, replace(options, steps=2 * options.steps))
    weights = sum(p.numel() for p in drawn.network.parameters()) * dtype.itemsize
    working = _working(drawn, (twice.scored - learning.scored) / 2 / options.steps, learning.logits, dtype.itemsize)
    shared, place = _placed(weights, working, planned)

    def seconds(work: Work, once: float = 0.0) -> float:
        """once: the share of the work that every process does for itself."""
        return operations(drawn, work) / (rate * 1e12) * (once + (1 - once) / shared)

    steps_alone = replace(learning, read=0.0, written=0.0, scored=twice.scored - learning.scored)
    return {
        "model": name_to_share(model),
        "parameters": weights // dtype.itemsize,
        "layers": drawn.anatomy.layers,
        "dtype": str(dtype).removeprefix("torch."),
        "devices": planned.count,
        "device_memory": planned.memory,
        "teraflops": rate,
        "weights_bytes": weights,
        "working_bytes": working,
        "place": place,
        "find": {"tokens": round(finding.tokens), "seconds": seconds(finding)},
        "enhance": {
            "tokens": round(learning.tokens),
            "seconds": seconds(learning, 1 - operations(drawn, steps_alone) / operations(drawn, learning)),
        },
        "steps": options.steps,
        "domain": domain,
        "burnish": __version__,
    }


def _working(model: Model, tokens: float, logits: float, item: int) -> int:
    """Bytes that a step keeps for its backward pass and its logits. tokens: of a step, both ways."""
    text, hidden = text_config(model.network.config), model.anatomy.hidden_size
    wide = int(getattr(text, "intermediate_size", None) or 4 * hidden)
    held = tokens * model.anatomy.layers * (HELD * hidden + 3 * wide) * item
    return round(held + 4 * 4 * logits * int(text.vocab_size))


def _placed(weights: int, working: int, planned: Devices) -> tuple[int, str]:
    """(devices that work at the same time, how)."""
    memory = planned.memory * 1e9
    if weights + working <= memory:
        if planned.count == 1:
            return 1, "one device holds the model"
        return planned.count, "every device holds the model; processes share prompts and the lessons of a step"
    if (weights + working) / planned.count <= memory:
        return 1, "layers are spread over the devices (--device spread), which work in turn"
    return 1, "does not fit: --layer-by-layer finds directions on one device, learning needs more or larger ones"


def plan_table(facts: dict[str, Any]) -> str:
    """The prediction, and what is not in it."""
    lines = {
        "model": f"{facts['model']}: {facts['parameters'] / 1e9:.2f} billion parameters, {facts['layers']} layers, {facts['dtype']}",
        "devices": f"{facts['devices']} with {facts['device_memory']:g} GB and {facts['teraflops']:.3g} TFLOP/s each",
        "weights": f"{facts['weights_bytes'] / 1e9:.1f} GB",
        "memory of a step besides": f"{facts['working_bytes'] / 1e9:.1f} GB",
        "how": facts["place"],
        "find": f"{facts['find']['tokens']:,} tokens of a forward pass, {lasting(facts['find']['seconds'])}",
        f"enhance ({facts['steps']} steps)": f"{facts['enhance']['tokens']:,} tokens of a forward pass, {lasting(facts['enhance']['seconds'])}",
    }
    rows = [f"| {name} | {text} |" for name, text in lines.items()]
    return "\n".join(["| what | predicted |", "|---|---|", *rows, "", PREDICTED])
