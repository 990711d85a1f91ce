"""A short fine-tune that adds what a direction cannot: prepared and checked without weights, trained, measured."""

import hashlib
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from burnish.anatomy import LinearMap, linear_maps
from burnish.artifacts.direction import Enhancement
from burnish.artifacts.files import claimed, disk_errors, partial_of, read_table
from burnish.artifacts.lora import LoraAdapter
from burnish.checking import check_changed
from burnish.errors import InputError, ModelError, OutputExistsError
from burnish.extras import require
from burnish.hybrid.barrier import Barrier, Everyday, damage, everyday_answers, within
from burnish.hybrid.combining import Protection, combine_of, scaled, total_layers, trained_factors
from burnish.hybrid.result import Trained, enhancement_layers
from burnish.hybrid.rows import RowSource, TrainingRows, as_rows
from burnish.hybrid.tokenised import TrainingItem, order, tokens_in, training_items
from burnish.hybrid.trainers import Run, lent, run
from burnish.maths.intervals import Interval
from burnish.model.folder_plan import FolderPlan
from burnish.model.live import live_edit, live_layers
from burnish.model.model import Model
from burnish.model.scoring import Item
from burnish.options import Combine, ModelOptions, TrainOptions
from burnish.prompts.domains import load_general
from burnish.steps import Progress

IDENTITY = "burnish.json"  # in the folder of checkpoints: what is being trained
BUDGET = 0.05  # nats per token of everyday prompts where the directions are protected, unless the caller says so


@dataclass(frozen=True)
class Prepared:
    """Everything about a training that needs no weights."""

    combine: Combine
    enhancement: Enhancement | None
    style: TrainingRows | None  # rows to train on, those held out taken away
    knowledge: TrainingRows | None
    held_out: tuple[TrainingItem, ...]
    pools: tuple[tuple[TrainingItem, ...], tuple[TrainingItem, ...]]  # (style, knowledge)
    order: tuple[tuple[bool, int], ...]  # (is knowledge, index in its pool), one a row of every step
    steps: int
    maps: tuple[LinearMap, ...]
    options: TrainOptions
    identity: str  # hash of all of it

    @property
    def items(self) -> list[TrainingItem]:
        """The rows of every step."""
        return [self.pools[kind][index] for kind, index in self.order]

    @property
    def budget(self) -> float | None:
        return self.options.budget or (BUDGET if self.combine == "protect" else None)

    @property
    def trained(self) -> int:
        """Numbers that the LoRA has."""
        return self.options.rank * sum(m.inputs + m.outputs for m in self.maps)


def prepare(
    model: Model,
    rows: RowSource | None = None,
    *,
    knowledge: RowSource | None = None,
    enhancement: Enhancement | None = None,
    combine: Combine | None = None,
    options: TrainOptions | None = None,
) -> Prepared:
    """Reads and checks rows, splits off those held out, and lays down the order of the rest. model: weights are not needed
    (`burnish.model.model.outline`).

    Raises InputError, PromptFileError for data or options, WrongModelError for an enhancement of another model.
    """
    options = options or TrainOptions()
    combine = combine_of(combine, enhancement)
    if enhancement is not None:
        enhancement.require(model.fingerprint, model.anatomy.layers, model.anatomy.hidden_size)
    if rows is None and knowledge is None:
        raise InputError("There is nothing to learn. Pass --data FILE, --knowledge FILE, or both.")
    style = None if rows is None else as_rows(rows)
    facts = None if knowledge is None else as_rows(knowledge, "knowledge")
    if facts is not None and any(r is not None and r.preference for r in (style, facts)):
        raise InputError("Preference rows are learnt by another loss than answered ones. Pass them alone as --data.")
    training_rows, held, items, held_items = [], [], [], []
    for part in (style, facts):
        training, out = (None, None) if part is None else part.split(options.held_out, options.seed)
        training_rows.append(training)
        held.append(out)
        items.append(() if training is None else tuple(training_items(model, training)))
        held_items += [] if not out else training_items(model, out)
    count = len(items[0]) + len(items[1])
    steps = options.steps or math.ceil(options.epochs * count / options.batch)
    share = options.knowledge_share if items[0] and items[1] else float(bool(items[1]))
    return Prepared(
        combine=combine,
        enhancement=enhancement,
        style=training_rows[0],
        knowledge=training_rows[1],
        held_out=tuple(held_items),
        pools=(items[0], items[1]),
        order=tuple(order(len(items[0]), len(items[1]), share, steps * options.batch, options.seed)),
        steps=steps,
        maps=_targets(model, options),
        options=options,
        identity=_identity(model, combine, enhancement, (style, facts), options),
    )


def _targets(model: Model, options: TrainOptions) -> tuple[LinearMap, ...]:
    maps = linear_maps(model.network, model.anatomy)
    if options.targets == "all":
        return maps
    wanted = {p.path for p in model.anatomy.attention()}
    return tuple(m for m in maps if m.path in wanted)


def _identity(
    model: Model,
    combine: Combine,
    enhancement: Enhancement | None,
    rows: Sequence[TrainingRows | None],
    options: TrainOptions,
) -> str:
    tensors = [] if enhancement is None else [enhancement.vectors, enhancement.gains]
    parts = [hashlib.sha256(t.float().contiguous().numpy().tobytes()).hexdigest() for t in tensors]
    text = json.dumps(
        [model.fingerprint, combine, parts, [r and r.hash for r in rows], asdict(options)], sort_keys=True
    )
    return hashlib.sha256(text.encode()).hexdigest()


def train(
    model: Model,
    rows: RowSource | None = None,
    *,
    knowledge: RowSource | None = None,
    enhancement: Enhancement | None = None,
    combine: Combine | None = None,
    options: TrainOptions | None = None,
    checkpoints: Path | str | None = None,
    check_prompts: int = 24,
    progress: Progress | None = None,
) -> Trained:
    """Trains a LoRA on rows, alone or combined with an enhancement; the model is left as it was.

    Args:
        model: the base model; its weights are not changed.
        rows: what is learnt: a file, mappings, or both kinds.
        knowledge: rows whose facts are learnt, as above.
        enhancement: made on this model.
        combine: `keep` with an enhancement unless said otherwise.
        options: rank, steps, budget in nats per token, the seed.
        checkpoints: a folder from which a killed training goes on when the same call is made again; without one there are no
            checkpoints.
        check_prompts: of the closing check; 0 leaves it out.
        progress: told of every part that takes long.

    Returns:
        The LoRA and the enhancement that belongs to it, with what was measured.

    Raises:
        InputError: rows or options make no sense together.
        PromptFileError: a file of rows cannot be read.
        MissingExtraError: the libraries that train (the `train` extra) are not installed.
        WrongModelError: the enhancement is of another model.
        ModelError: the enhancement alone is above the budget.
        OutputExistsError: the checkpoints are of another training.
    """
    require("train", "Training")
    prepared = prepare(model, rows, knowledge=knowledge, enhancement=enhancement, combine=combine, options=options)
    return train_prepared(model, prepared, checkpoints=checkpoints, check_prompts=check_prompts, progress=progress)


def train_prepared(
    model: Model,
    prepared: Prepared,
    *,
    checkpoints: Path | str | None = None,
    check_prompts: int = 24,
    progress: Progress | None = None,
) -> Trained:
    """The same for what `prepare` has read and checked."""
    with _folder(checkpoints, prepared.identity) as folder:
        plan = FolderPlan(model.folder, ModelOptions(), known=model.anatomy)
        underneath = enhancement_layers(plan, prepared.enhancement)
        everyday, barrier = Everyday([], []), None
        if prepared.budget is not None:
            everyday = everyday_answers(model, prepared.options, progress)
            _require_room(model, prepared, everyday.measured)
            barrier = Barrier.of(model, everyday.barred, prepared.budget)
        lora, done = _trained(model, prepared, folder, barrier, progress)
    maps = {m.path: m for m in prepared.maps}

    def changed(scale: float) -> Any:
        return live_layers(model.network, total_layers(underneath, scaled(lora, scale), maps))

    scale, moved = 1.0, None
    if prepared.budget is not None:
        scale, moved = within(lambda s: damage(model, everyday.measured, lambda: changed(s)), prepared.budget)
    lora = lora if scale == 1.0 else scaled(lora, scale)
    general = load_general().held_out.spread(check_prompts) if check_prompts else None
    checked = None if general is None else check_changed(model, lambda: changed(scale), general, progress=progress)
    record = _record(model, prepared, done, scale, moved)
    return Trained(lora, prepared.enhancement, record, None if checked is None else checked.as_dict())


def _trained(
    model: Model,
    prepared: Prepared,
    folder: Path,
    barrier: Barrier | None,
    progress: Progress | None,
) -> tuple[LoraAdapter, Run]:
    """Lends the network to PEFT and trl, and takes it back."""
    from peft import LoraConfig, get_peft_model

    options, enhancement = prepared.options, prepared.enhancement
    with lent(model), ExitStack() as stack:
        if enhancement is not None:
            # Hooks on the maps themselves, which PEFT wraps: the LoRA is added to what the enhancement makes of them.
            stack.enter_context(live_edit(model.network, model.anatomy, enhancement))
        config = LoraConfig(
            r=options.rank,
            lora_alpha=options.rank,
            target_modules=[m.path for m in prepared.maps],
            fan_in_fan_out=prepared.maps[0].layout == "in_out",
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            adapted = get_peft_model(model.network, config)
        stack.callback(adapted.unload)
        protection = None
        if prepared.combine == "protect" and enhancement is not None:
            protection = Protection.of(enhancement, model.anatomy, prepared.maps, model.network)
        done = run(
            model,
            adapted,
            prepared.items,
            prepared.held_out,
            prepared.steps,
            options,
            folder,
            barrier=barrier,
            protection=protection,
            progress=progress,
        )
        return trained_factors(adapted, prepared.combine), done


def _require_room(model: Model, prepared: Prepared, everyday: Sequence[Item]) -> None:
    """Raises ModelError when the enhancement alone, which stays, is above the budget."""
    if prepared.budget is None or prepared.enhancement is None:
        return
    enhancement = prepared.enhancement
    alone = damage(model, everyday, lambda: live_edit(model.network, model.anatomy, enhancement))
    if alone.high > prepared.budget:
        raise ModelError(
            f"The enhancement alone moves everyday answers by {alone.mean:.4f} nats per token (95 % interval up to {alone.high:.4f}), and the budget "
            f"is {prepared.budget:g}: nothing is left for the training. Lower it with --enhancement-factor, or raise --budget."
        )


@contextmanager
def _folder(checkpoints: Path | str | None, identity: str) -> Iterator[Path]:
    """Where checkpoints are kept until the training is done. Raises OutputExistsError for those of another one, OutputError
    while another process trains there."""
    if checkpoints is None:
        with tempfile.TemporaryDirectory(prefix="burnish-") as temporary:
            yield Path(temporary)
        return
    from accelerate import PartialState

    folder = Path(checkpoints)
    with disk_errors(folder), claimed(folder) if PartialState().is_main_process else nullcontext():
        _identify(folder, identity)
        yield folder


def _identify(folder: Path, identity: str) -> None:
    """Writes what is being trained into a new folder. Raises OutputExistsError for one of another training."""
    mark = folder / IDENTITY
    fresh = partial_of(mark)
    if folder.exists() and any(p != fresh for p in folder.iterdir()):
        known = read_table(mark).get("identity") if mark.is_file() else None
        if known != identity:
            raise OutputExistsError(
                f"{folder} holds checkpoints of another training (other rows, options or model). Remove it to start anew, or repeat that "
                "training's command to go on with it."
            )
    folder.mkdir(parents=True, exist_ok=True)
    fresh.write_text(json.dumps({"identity": identity}) + "\n", encoding="utf-8")
    fresh.replace(mark)


def _record(
    model: Model,
    prepared: Prepared,
    done: Run,
    scale: float,
    moved: Interval | None,
) -> dict[str, Any]:
    """What `burnish.json` says of the training."""
    seen = prepared.items[: done.steps * prepared.options.batch]
    return {
        "base": model.name,
        "fingerprint": model.fingerprint,
        "combine": prepared.combine,
        "direction": prepared.enhancement is not None,
        "rows": sum(len(pool) for pool in prepared.pools),
        "style_rows": len(prepared.pools[0]),
        "knowledge_rows": len(prepared.pools[1]),
        "held_out_rows": len(prepared.held_out),
        "data": [None if r is None else {"name": r.name, "hash": r.hash} for r in (prepared.style, prepared.knowledge)],
        "steps": done.steps,
        "stopped_early": done.stopped_early,
        "tokens": tokens_in(seen),
        "held_out_before": done.held_out_before,
        "held_out_after": done.held_out_after,
        "losses": done.losses,
        "maps": len(prepared.maps),
        "budget": prepared.budget,
        "everyday_kl": None if moved is None else asdict(moved),
        "scale": scale,
        "options": asdict(prepared.options),
        "versions": {name: version(name) for name in ("burnish", "torch", "transformers", "peft", "trl")},
    }
