"""A person's style from their own writing, against what the base model writes about the same things.

Each passage is paired with the model's own answer to a prompt that names the passage's topic by its longest words: a
topic, but neither the order, the register nor an opening to imitate, so that what differs between the two is the
manner. The difference is said twice. In coordinates of the named directions (features, least squares with a ridge) it
becomes coefficients; what the names leave over, a direction of what attention writes, becomes a residual of the
person's own.

Few passages say little: both parts are believed by n / (n + n0). For a mean of n rows with total variance v = tr(S)
around a true difference of squared size m, the shrinkage with the least squared error is m / (m + v / n), so n0 = v /
m, the number of passages at which half is believed. m is estimated without bias by |mean|^2 - v / n; where that is not
above zero nothing is believed (the positive part of James and Stein 1961). Nothing of the person's is cached: the
model's answers are made again each time.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from burnish.artifacts.direction import Direction
from burnish.errors import InputError, ModelError
from burnish.evaluation.pairs import BATCH, Answered
from burnish.finding import find_direction
from burnish.maths.protection import without
from burnish.model.model import Model
from burnish.options import FindOptions
from burnish.personal.features import READ_TOKENS, Progress, answer_means, answered, features_of
from burnish.personal.profile import Units, Written
from burnish.prompts import Prompt, PromptSet
from burnish.prompts.domains import load_general, load_protect
from burnish.prompts.table_files import read_text

FEWEST, MOST = 8, 95  # passages
PASSAGE_WORDS = 40  # paragraphs are joined until they have as many
TOPIC_WORDS = 5
ASK = {"en": "Write a passage about these things: {}.", "ko": "다음 낱말에 관한 글을 한 단락 쓰세요: {}."}
NOT_WRITING = re.compile(r"^\s*(#|>|!\[|\||---)")  # headings, quotations of others, pictures, tables
NAME = "own writing"


@dataclass(frozen=True)
class Shrinkage:
    """How far a mean of rows is believed."""

    rows: int
    half: float  # n0: rows at which half is believed; infinite where the rows agree on nothing
    weight: float  # n / (n + n0)


def shrinkage(rows: Tensor) -> Shrinkage:
    """rows: [n, d], n at least 2. Formula above."""
    exact, n = rows.double(), len(rows)
    variance = float(exact.var(0).sum())
    size = float(exact.mean(0).square().sum()) - variance / n
    half = variance / size if size > 0 else float("inf")
    return Shrinkage(n, half, n / (n + half))


def read_passages(folder: Path) -> list[str]:
    """Passages of a folder's .txt and .md files, by file name: paragraphs, joined until they have 40 words.

    Headings, quotations, tables and code of Markdown are left out. Raises InputError for a folder without 8 passages,
    PromptFileError for a file that is not UTF-8.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Pass a folder of .txt or .md files of your own writing.")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in (".txt", ".md") and f.is_file())
    passages = [passage for file in files for passage in _passages(file)]
    if len(passages) < FEWEST:
        raise InputError(
            f"{folder} holds {len(passages)} passages of {PASSAGE_WORDS} words in {len(files)} .txt and .md files: too few to tell a style "
            f"from chance. Add writing: {FEWEST} passages at least, 40 or more are better."
        )
    return passages


def topic_prompt(passage: str, language: str) -> str:
    """A prompt that names what a passage is about by its longest words, in their order."""
    words = list(dict.fromkeys(re.findall(r"[^\W\d_]+", passage.lower())))
    longest = set(sorted(words, key=len, reverse=True)[:TOPIC_WORDS])
    return ASK[language].format(", ".join(word for word in words if word in longest))


def learn_writing(
    model: Model,
    passages: list[str],
    reading: Mapping[str, Direction],
    units: Units,
    editing: Mapping[str, Direction],
    language: str,
    progress: Progress | None = None,
) -> tuple[Written, Direction]:
    """(what the writing says, the residual direction: the style without the names, for `Store.update` to keep).

    reading, units: of the features; editing: what attention writes along the same names (`editing_directions`). The
    coefficients are at most of length 1 together: that the model writes unlike the person says which way to go, and the
    budget how far. Their deviations are those of the posterior under the prior that n0 implies: sqrt(S_jj / (n + n0)).
    Raises ModelError when the model answers hardly anything.
    """
    some = PromptSet("all", tuple(Prompt.of(topic_prompt(p, language), p) for p in passages)).spread(MOST)
    theirs, models = _paired(model, some, progress)
    rows = answered(model, [(p, p.answer or "") for side in (theirs, models) for p in side.prompts])
    features = features_of(model, reading, units, rows, progress)
    one, other = torch.tensor([list(row.values()) for row in features], dtype=torch.float64).chunk(2)
    differences = one - other
    named = shrinkage(differences)
    length = max(1.0, float(differences.mean(0).norm()))
    deviations = (differences.var(0) / (named.rows + named.half)).sqrt() / length
    options = FindOptions(scope="per-layer", site="attention", position="answer", protect=True)
    spared = load_general(language).prompts.joined(load_protect())
    style = find_direction(model, enhance=theirs, normal=models, options=options, protect=spared, progress=progress)
    left = shrinkage(_left_over(model, editing, style.layer, rows, progress))
    residual, believed = residual_of(style, list(editing.values())), left.weight if style.found else 0.0
    mean = (differences.mean(0) / length).tolist()
    written = Written(
        passages=len(theirs),
        weight=named.weight,
        coefficients=dict(zip(reading, mean, strict=True)),
        deviations=dict(zip(reading, deviations.tolist(), strict=True)),
        residual=hashlib.sha256(residual.vectors.numpy().tobytes()).hexdigest()[:16] if believed else None,
        residual_weight=believed,
        fingerprint=model.fingerprint,
    )
    return written, residual


def residual_of(style: Direction, named: Sequence[Direction]) -> Direction:
    """What the named directions leave of a style, in every layer."""
    return replace(style, vectors=without(style.vectors, torch.stack([d.used() for d in named], 1)).float())


def _passages(file: Path) -> list[str]:
    text = read_text(file)
    if file.suffix.lower() == ".md":
        text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
        text = "\n".join(line for line in text.splitlines() if not NOT_WRITING.match(line))
    passages, waiting = [], ""
    for paragraph in re.split(r"\n\s*\n", text):
        waiting = f"{waiting}\n\n{paragraph.strip()}".strip()
        if len(waiting.split()) >= PASSAGE_WORDS:
            passages.append(waiting)
            waiting = ""
    return passages


def _paired(model: Model, passages: PromptSet, progress: Progress | None) -> tuple[PromptSet, PromptSet]:
    """(passages, own answers) row by row; prompts that the model answers with nothing are left out."""
    texts: list[str] = []
    for start in range(0, len(passages), BATCH):
        part = [model.tokens(Prompt(p.messages)) for p in passages.prompts[start : start + BATCH]]
        texts += [
            str(model.tokenizer.decode(a, skip_special_tokens=True)) for a in model.continuations(part, READ_TOKENS)
        ]
        if progress is not None:
            progress("answering on the same topics", len(texts), len(passages))
    pairs = [(p, replace(p, answer=text)) for p, text in zip(passages.prompts, texts, strict=True) if text.strip()]
    if len(pairs) < FEWEST:
        raise ModelError(
            f"The model answers only {len(pairs)} of {len(passages)} topics with text: there is nothing to compare the writing with. "
            "Check its chat template and its end-of-text token."
        )
    theirs, models = zip(*pairs, strict=True)
    return PromptSet(NAME, theirs), PromptSet("the model's own answers", models)


def _left_over(
    model: Model,
    editing: Mapping[str, Direction],
    layer: int,
    rows: Sequence[Answered],
    progress: Progress | None,
) -> Tensor:
    """Differences of what attention writes at a layer, without the span of the named directions there, [n, hidden]."""
    one, other = answer_means(model, rows, site="attention", layer=layer, progress=progress).double().chunk(2)
    basis: Tensor = torch.linalg.qr(torch.stack([d.vectors[layer] for d in editing.values()], 1).double()).Q
    apart = one - other
    return apart - apart @ basis @ basis.T
