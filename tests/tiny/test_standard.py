"""Standard benchmarks: the harness's numbers are those of the plain model, with and without the live edit."""

import json
import os
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from statistics import stdev

import pytest
import torch
import urllib3  # noqa: F401  looks for IPv6 with a socket when it is first imported, and tests may not open one
import yaml

from burnish import export
from burnish.artifacts.direction import Enhancement
from burnish.errors import DownloadError, InputError
from burnish.evaluation.standard import StandardScore, run_standard
from burnish.model.model import Model
from burnish.options import FormName, ModelOptions
from conftest import Models, random_enhancement

os.environ["HF_DATASETS_OFFLINE"] = "1"

WORDS = ["red", "old", "sea", "dusk", "lamp", "stone", "bird", "salt"]
DOCUMENTS = [
    {"question": f"The {a} by the {b} is", "choices": [a[:3], b[:3], "lit"], "answer": (i + j) % 3}
    for i, a in enumerate(WORDS)
    for j, b in enumerate(WORDS[:3])
]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with one local multiple-choice task."""
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS))
    task = {
        "task": "harbour",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 3.0},
    }
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "harbour.yaml").write_text(yaml.safe_dump(task))
    (folder / "unsafe.yaml").write_text(yaml.safe_dump({**task, "task": "unsafe", "unsafe_code": True}))
    return folder


@torch.inference_mode()
def sums(model: Model, enhancement: Enhancement | None = None, *, vocabulary: int | None = None) -> list[list[float]]:
    """The summed log probability of each document's choices, one plain pass a choice. vocabulary: tokens that count, all by default."""
    rows: list[list[float]] = []
    with nullcontext() if enhancement is None else model.enhanced(enhancement):
        for document in DOCUMENTS:
            context = model.tokenizer(document["question"])["input_ids"]
            rows.append([])
            for choice in document["choices"]:
                answer = model.tokenizer(f" {choice}", add_special_tokens=False)["input_ids"]
                logits = model.network(input_ids=torch.tensor([context + answer])).logits[
                    0, len(context) - 1 : -1, :vocabulary
                ]
                rows[-1].append(float(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()))
    return rows


def hits(model: Model, enhancement: Enhancement | None = None) -> list[float]:
    """1 for each document whose answer has the largest sum."""
    rows = sums(model, enhancement)
    return [float(max(range(3), key=row.__getitem__) == d["answer"]) for row, d in zip(rows, DOCUMENTS, strict=True)]


def one(scores: tuple[StandardScore, ...]) -> StandardScore:
    (score,) = scores
    return score


def test_accuracy_is_that_of_the_choices_log_probabilities(tiny_model: Models, tasks: Path) -> None:
    model = tiny_model("llama")
    enhancement = random_enhancement(model, 8.0)
    report = run_standard(model, ["harbour"], enhancement=enhancement, include=tasks)
    base, enhanced = hits(model), hits(model, enhancement)
    assert base != enhanced  # otherwise the test below shows nothing
    n = len(DOCUMENTS)
    score = one(report.scores)
    assert (score.task, score.metric, score.n, score.higher_is_better) == ("harbour", "acc", n, True)
    assert (score.base, score.enhanced) == pytest.approx((sum(base) / n, sum(enhanced) / n))
    assert score.difference == pytest.approx((sum(enhanced) - sum(base)) / n)
    assert (score.base_stderr, score.enhanced_stderr) == pytest.approx((stdev(base) / n**0.5, stdev(enhanced) / n**0.5))
    differences = [q - p for p, q in zip(base, enhanced, strict=True)]
    assert score.difference_stderr == pytest.approx(stdev(differences) / n**0.5)
    assert report.task_versions == {"harbour": "3.0"}
    assert set(report.versions) == {"lm_eval", "datasets", "transformers", "torch"}


@pytest.mark.full
@pytest.mark.parametrize("form", ["model", "adapter"])
def test_the_harness_alone_reads_what_the_live_form_says(
    tiny_model: Models, tasks: Path, tmp_path: Path, form: FormName
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    model = tiny_model("llama")
    enhancement = random_enhancement(model, 1.5)
    out = export(enhancement, tmp_path / "out", form=form, options=ModelOptions(dtype="float32")).out
    folder = f"pretrained={out}" if form == "model" else f"pretrained={model.folder},peft={out}"
    local = TaskManager(include_path=str(tasks), include_defaults=False)
    results = simple_evaluate(
        "hf",
        model_args=f"{folder},dtype=float32",
        tasks=["harbour"],
        task_manager=local,
        device="cpu",
        log_samples=True,
    )
    samples = sorted(results["samples"]["harbour"], key=lambda sample: sample["doc_id"])
    harness = torch.tensor([[answer[0] for answer in sample["filtered_resps"]] for sample in samples])
    # With an adapter the harness cuts the model's table of tokens down to the tokenizer's.
    vocabulary = None if form == "model" else len(model.tokenizer)
    live = torch.tensor(sums(model, enhancement, vocabulary=vocabulary))
    torch.testing.assert_close(harness, live, rtol=1e-3, atol=1e-3)
    assert (live - torch.tensor(sums(model, vocabulary=vocabulary))).abs().max() > 0.1


@pytest.mark.full
def test_a_zero_gain_changes_no_score(tiny_model: Models, tasks: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = tiny_model("llama", own=True)
    model.tokenizer.pad_token = None
    report = run_standard(model, ["harbour"], enhancement=random_enhancement(model, 0.0), include=tasks, limit=5)
    score = one(report.scores)
    assert (score.n, score.difference, score.difference_stderr) == (5, 0, 0)
    assert score.enhanced == score.base
    assert model.tokenizer.pad_token is None
    assert capfd.readouterr() == ("", "")
    json.dumps(asdict(report))


@pytest.mark.full
def test_without_an_enhancement_only_the_base_is_scored(tiny_model: Models, tasks: Path) -> None:
    score = one(run_standard(tiny_model("llama"), ["harbour"], enhancement=None, include=tasks, limit=3).scores)
    assert score.base_stderr is not None
    assert (score.enhanced, score.difference) == (None, None)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param(["harbour", "hellaswagg"], "'hellaswagg'.*Close names: .*hellaswag", marks=pytest.mark.full),
        (["harbour", "unsafe"], "'unsafe' runs code"),
        ([], "No task"),
    ],
)
def test_tasks_that_cannot_run_are_named(names: list[str], message: str, tiny_model: Models, tasks: Path) -> None:
    with pytest.raises(InputError, match=message):
        run_standard(tiny_model("llama"), names, enhancement=None, include=tasks)


def test_data_that_cannot_be_loaded_is_an_error_of_its_own(tiny_model: Models, tasks: Path) -> None:
    (tasks.parent / "data.jsonl").unlink()
    with pytest.raises(DownloadError, match=r"'harbour'.*data\.jsonl"):
        run_standard(tiny_model("llama"), ["harbour"], enhancement=None, include=tasks)


def test_a_missing_package_says_what_to_install(tiny_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InputError, match=r"pip install 'burnish\[eval\]'"):
        run_standard(tiny_model("llama"), ["harbour"], enhancement=None)


def test_what_cannot_run_is_said_first(tiny_model: Models, tmp_path: Path) -> None:
    for options, words in (({"limit": 0}, "limit is 0"), ({"include": tmp_path / "nowhere"}, "nowhere")):
        with pytest.raises(InputError, match=words):
            run_standard(tiny_model("llama"), ["harbour"], enhancement=None, **options)
