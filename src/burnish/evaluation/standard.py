"""Standard benchmarks on the base and the enhanced model, through EleutherAI's lm-evaluation-harness (the `eval` extra)."""

import copy
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib.metadata import version
from math import isclose, sqrt
from pathlib import Path
from statistics import fmean, stdev
from types import ModuleType
from typing import Any
from unittest.mock import patch

from burnish.artifacts.direction import Enhancement
from burnish.errors import DownloadError, InputError
from burnish.extras import require
from burnish.model.model import Model

PACKAGES = ("lm_eval", "datasets", "transformers", "torch")
BATCH = 8  # requests at once


@dataclass(frozen=True)
class StandardScore:
    """One metric of one task or group, of both models on the same `n` documents, in the task's own unit."""

    task: str
    metric: str
    filter: str  # how answers were cut out of the output; "none" for choices
    n: int
    higher_is_better: bool | None
    base: float
    base_stderr: float | None
    enhanced: float | None = None
    enhanced_stderr: float | None = None
    difference: float | None = None  # enhanced - base
    difference_stderr: float | None = None  # paired over the documents; only for metrics that are means over them


@dataclass(frozen=True)
class StandardReport:
    """What the harness measured, and with what."""

    scores: tuple[StandardScore, ...]
    versions: dict[str, str]  # packages
    task_versions: dict[str, str]
    limit: int | None
    seed: int


def run_standard(
    model: Model,
    tasks: Sequence[str],
    *,
    enhancement: Enhancement | None,
    include: Path | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> StandardReport:
    """Runs harness tasks on the base model and, with the live enhancement, on the enhanced one.

    `tasks` are names of tasks, groups or tags, the harness's own or those of YAML files under `include`. `limit` is the number of
    documents of each task. Seeds the generators of Python, numpy and torch.

    Raises MissingExtraError without the `eval` extra, InputError for a task that does not exist, is named twice or runs the model's own code, and
    for a limit below 1; DownloadError when a task's data cannot be loaded; WrongModelError when the enhancement was made for other weights.
    """
    _require(tasks, include, limit)
    with _quiet():
        evaluator, tasks_module, huggingface = _harness()
        manager = _manager(tasks_module, tasks, include)
        built = _built(manager, tasks)
        # A copy of the tokenizer: the harness gives one without a padding token a token of its own choice.
        wrapped = huggingface.HFLM(
            pretrained=model.network, tokenizer=copy.deepcopy(model.tokenizer), backend="causal", batch_size=BATCH
        )

        def run() -> dict[str, Any]:
            # The harness would ask git for the commit of the working folder, which says nothing about the model.
            with patch.object(evaluator, "get_git_commit_hash", return_value="", create=True):
                results = evaluator.simple_evaluate(
                    wrapped,
                    tasks=built,
                    task_manager=manager,
                    limit=limit,
                    random_seed=seed,
                    numpy_random_seed=seed,
                    torch_random_seed=seed,
                    fewshot_random_seed=seed,
                )
            return dict(results)

        base, enhanced = run(), None
        if enhancement is not None:
            with model.enhanced(enhancement):
                enhanced = run()
    task_versions = {task: str(number) for task, number in sorted(base["versions"].items())}
    versions = {package: version(package) for package in PACKAGES}
    return StandardReport(tuple(_scores(base, enhanced)), versions, task_versions, limit, seed)


def _require(tasks: Sequence[str], include: Path | None, limit: int | None) -> None:
    """What can be known to be wrong before the harness is imported."""
    if not tasks:
        raise InputError("No task was named, so there is nothing to run. Name at least one, such as hellaswag.")
    if limit is not None and limit < 1:
        raise InputError(
            f"The limit is {limit}, and a task needs at least one document. Use 1 or more, or none for all."
        )
    if include is not None and not include.is_dir():
        raise InputError(
            f"There is no folder {include} to read tasks from. Name the folder that holds the tasks' YAML files."
        )


def _harness() -> tuple[ModuleType, ModuleType, ModuleType]:
    """lm_eval's evaluator, tasks and Hugging Face modules: an optional extra, slow to import."""
    require("eval", "A standard task")
    from lm_eval import evaluator, tasks
    from lm_eval.models import huggingface

    return evaluator, tasks, huggingface


def _manager(tasks_module: ModuleType, tasks: Sequence[str], include: Path | None) -> Any:
    """An index that knows every task asked for; the harness's own thousands are read only when one of them is."""
    if include is not None:
        local = tasks_module.TaskManager(include_path=include, include_defaults=False)
        if set(tasks) <= set(local.all_subtasks):
            return local
    manager = tasks_module.TaskManager(include_path=include)
    for task in tasks:
        if task not in manager.task_index:
            close = ", ".join(get_close_matches(task, manager.all_tasks, n=5)) or "none"
            raise InputError(
                f"There is no task {task!r}: neither the harness nor the included folder has one of that name. "
                f"Close names: {close}."
            )
    return manager


def _built(manager: Any, tasks: Sequence[str]) -> list[Any]:
    """The task and group objects of the names: both runs share them, so that the data is loaded once."""
    built: list[Any] = []
    seen: set[str] = set()
    for task in dict.fromkeys(tasks):
        try:
            loaded = manager.load([task])
        except OSError as error:  # offline, not found and HTTP errors of the data's hub are all of this class
            raise DownloadError(
                f"The data of task {task!r} could not be loaded: {error}. "
                "Check the connection or the task's data_files, or name tasks whose data is already cached."
            ) from error
        if twice := sorted(seen & loaded["tasks"].keys()):
            raise InputError(
                f"Task {twice[0]!r} would run twice: {task!r} and a name before it both hold it. Leave one of them out."
            )
        if unsafe := [name for name, built in sorted(loaded["tasks"].items()) if getattr(built, "UNSAFE_CODE", False)]:
            raise InputError(
                f"Task {unsafe[0]!r} runs code that the model wrote, which is not safe here. Leave it out, or export the "
                "model and run the harness itself where that does no harm."
            )
        seen |= loaded["tasks"].keys()
        groups = loaded.get("groups", {})
        built += [groups[task]] if task in groups else loaded["tasks"].values()
    return built


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, prints or log lines of the harness and the packages it uses."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _scores(base: dict[str, Any], enhanced: dict[str, Any] | None) -> Iterator[StandardScore]:
    """One score for each number in the results, in the order of task and metric."""
    for task, row in sorted(base["results"].items()):
        for key, value in sorted(row.items()):
            metric, _, name = key.partition(",")
            if not name or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue  # aliases and counts, errors, and metrics that are tables
            error = f"{metric}_stderr,{name}"
            score = StandardScore(
                task=task,
                metric=metric,
                filter=name,
                n=int(row.get("sample_count", {}).get(key, row["sample_len"])),
                higher_is_better=base["higher_is_better"].get(task, {}).get(metric),
                base=float(value),
                base_stderr=_number(row.get(error)),
            )
            if enhanced is None:
                yield score
                continue
            other = enhanced["results"][task]
            rounded = {
                "enhanced": float(other[key]),
                "enhanced_stderr": _number(other.get(error)),
                "difference": float(other[key]) - score.base,
                "difference_stderr": _paired(base, enhanced, score),
            }
            yield StandardScore(**{**asdict(score), **rounded})


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None  # the harness writes "N/A"


def _paired(base: dict[str, Any], enhanced: dict[str, Any], score: StandardScore) -> float | None:
    """Standard error of the mean difference over the documents, s / sqrt(n): the two models answer the same ones."""
    columns = [
        {
            sample["doc_id"]: sample.get(score.metric)
            for sample in results["samples"].get(score.task, [])
            if sample["filter"] == score.filter
        }
        for results in (base, enhanced)
    ]
    pairs = [(first, columns[1].get(document)) for document, first in columns[0].items()]
    numbers = [(float(p), float(q)) for p, q in pairs if isinstance(p, int | float) and isinstance(q, int | float)]
    if len(numbers) < 2 or len(numbers) < len(pairs):
        return None
    if not isclose(fmean(p for p, _ in numbers), score.base, rel_tol=1e-6, abs_tol=1e-9):
        return None  # not a mean over documents: a perplexity, a corpus score
    return stdev(q - p for p, q in numbers) / sqrt(len(numbers))
