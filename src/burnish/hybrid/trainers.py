"""The trainers of trl, with a barrier, a protection and progress; what runs them leaves the model as it was."""

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor

from burnish.errors import InputError
from burnish.hybrid.barrier import Barrier
from burnish.hybrid.combining import Protection
from burnish.hybrid.tokenised import TrainingItem
from burnish.model.loading import quiet
from burnish.model.model import Model
from burnish.options import TrainOptions
from burnish.steps import Progress


class Watch(transformers.TrainerCallback):  # type: ignore[misc]
    """Reports progress, keeps the losses, and takes out of each step what is protected."""

    def __init__(self, adapted: Any, protection: Protection | None, progress: Progress | None) -> None:
        self.adapted, self.protection, self.progress = adapted, protection, progress

    def on_step_end(self, arguments: Any, state: Any, control: Any, **_: Any) -> None:
        if self.protection is not None:
            self.protection.apply(self.adapted)
        if self.progress is not None and state.is_world_process_zero:
            self.progress("training", state.global_step, state.max_steps)


class _Plain:
    """What both trainers share: a barrier in the loss, rows that are tokens already, no card and no report of the library's own."""

    barrier: Barrier | None = None

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        if self.barrier is None or return_outputs or not model.training:
            return loss
        trainer: Any = self
        # The trainer divides by the accumulated parts only where the loss does not do it by counting tokens.
        parts = 1 if num_items_in_batch is None else trainer.current_gradient_accumulation_steps
        penalty: Tensor = self.barrier.penalty(trainer.accelerator.unwrap_model(model), trainer.state.global_step)
        return loss + penalty / parts

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        """The library would tell its makers of every training."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(frozen=True)
class Run:
    """What came of a training."""

    losses: list[list[float | None]]  # [step, loss, that of the held-out rows], each None where it was not measured
    steps: int
    held_out_before: float | None
    held_out_after: float | None
    stopped_early: bool


def run(
    model: Model,
    adapted: Any,
    items: Sequence[TrainingItem],
    held_out: Sequence[TrainingItem],
    steps: int,
    options: TrainOptions,
    folder: Path,
    *,
    barrier: Barrier | None = None,
    protection: Protection | None = None,
    progress: Progress | None = None,
) -> Run:
    """Trains the adapter "default" of a PEFT model; a checkpoint in `folder` is gone on from.

    items: those of every step, in the order in which they are seen. held_out: may be empty.
    """
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    preferring = items[0].rejected is not None
    arguments = _arguments(model, steps, options, folder, measured=bool(held_out))
    watch = Watch(adapted, protection, progress)
    callbacks: list[Any] = [watch]
    if held_out and options.patience:
        callbacks.append(transformers.EarlyStoppingCallback(options.patience))
    if preferring:
        config: Any = DPOConfig(**arguments, beta=options.preference_strength)
        kind: Any = type("Trainer", (_Plain, DPOTrainer), {})
    else:
        config, kind = SFTConfig(**arguments), type("Trainer", (_Plain, SFTTrainer), {})
    trainer = kind(
        model=adapted,
        args=config,
        train_dataset=_dataset(items),
        eval_dataset=_dataset(held_out) if held_out else None,
        processing_class=model.tokenizer,
        callbacks=callbacks,
    )
    trainer.barrier = barrier
    trainer.remove_callback(transformers.PrinterCallback)
    before = trainer.evaluate()["eval_loss"] if held_out else None
    trainer.train(resume_from_checkpoint=_last(folder))
    after = trainer.evaluate()["eval_loss"] if held_out else None
    done = trainer.state.global_step
    return Run(_losses(trainer.state.log_history), done, before, after, done < steps)


def _arguments(model: Model, steps: int, options: TrainOptions, folder: Path, *, measured: bool) -> dict[str, Any]:
    """Settings of both trainers. Rows come in the order given, so that a resumed training sees those that are left."""
    import accelerate

    devices = accelerate.PartialState().num_processes
    rows = options.device_rows
    if options.batch % (rows * devices):
        raise InputError(
            f"--batch {options.batch} is no multiple of {devices} devices times {rows} rows at once. Pass a --batch that is."
        )
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": rows,
        "per_device_eval_batch_size": rows,
        "gradient_accumulation_steps": options.batch // (rows * devices),
        "gradient_checkpointing": options.gradient_checkpointing,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": min(10, steps // 10),
        "weight_decay": 0.0,
        "seed": options.seed,
        "data_seed": options.seed,
        "train_sampling_strategy": "sequential",
        "max_length": None,
        "bf16": False,  # the model's own number type; the LoRA is float32
        "use_cpu": model.device.type == "cpu",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": options.check_every,
        "save_total_limit": 2,
        "eval_strategy": "steps" if measured else "no",
        "eval_steps": options.check_every,
        "load_best_model_at_end": measured and options.check_every <= steps,
        "metric_for_best_model": "eval_loss" if measured else None,
        "greater_is_better": False if measured else None,
        "restore_callback_states_from_checkpoint": True,
        "prediction_loss_only": True,
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": model.device.type == "cuda",
    }


def _dataset(items: Sequence[TrainingItem]) -> Any:
    """Columns as the trainers have them after their own tokenising."""
    from datasets import Dataset

    if items[0].rejected is not None:
        rows = [{"prompt_ids": i.prompt, "chosen_ids": i.answer, "rejected_ids": i.rejected} for i in items]
    else:
        rows = [{"input_ids": i.prompt + i.answer, "labels": [-100] * len(i.prompt) + i.answer} for i in items]
    return Dataset.from_list(rows)


def _last(folder: Path) -> str | None:
    """The newest complete checkpoint: its trainer state is written last."""
    checkpoints = [p for p in folder.glob("checkpoint-*") if (p / "trainer_state.json").exists()]
    return str(max(checkpoints, key=lambda p: int(p.name.rsplit("-", 1)[1]))) if checkpoints else None


def _losses(logs: Sequence[dict[str, Any]]) -> list[list[float | None]]:
    by_step: dict[int, dict[str, float]] = {}
    for entry in logs:
        measured: dict[str, float] = {key: entry[key] for key in ("loss", "eval_loss") if key in entry}
        if measured:
            by_step.setdefault(int(entry["step"]), {}).update(measured)
    return [[step, losses.get("loss"), losses.get("eval_loss")] for step, losses in sorted(by_step.items())]


@contextmanager
def lent(model: Model) -> Iterator[None]:
    """Gives the network away for training and takes it back as it was: forward, settings, modes, frozen weights."""
    network, tokenizer = model.network, model.tokenizer
    text = network.config.get_text_config()
    settings = copy.deepcopy(network.generation_config), text.pad_token_id, tokenizer.pad_token, text.use_cache
    own_forward = network.__dict__.get("forward")
    try:
        with quiet(), _silent():
            yield
    finally:
        if own_forward is None:
            network.__dict__.pop("forward", None)
        else:
            network.forward = own_forward
        network.generation_config, text.pad_token_id, tokenizer.pad_token, text.use_cache = settings
        network.requires_grad_(False)
        network.eval()


@contextmanager
def _silent() -> Iterator[None]:
    """No logging and no bars of the libraries while they train."""
    import datasets

    loggers = [logging.getLogger(name) for name in ("trl", "accelerate", "peft", "datasets")]
    levels = [logger.level for logger in loggers]
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
