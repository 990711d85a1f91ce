"""`learn`: directions and gains from a teacher, scaled by measured damage, reported on prompts that nothing was chosen by."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from burnish.artifacts.cache import cache_file
from burnish.artifacts.direction import Enhancement
from burnish.artifacts.files import remove
from burnish.checking import Check, repetition
from burnish.errors import InputError, ModelError
from burnish.evaluation.damage import refuses
from burnish.evaluation.evaluating import Sample
from burnish.evaluation.material import Answered, answered_items, base_answers, greedy_answers
from burnish.learning.descent import descend
from burnish.learning.directions import learned_enhancement, with_reports
from burnish.learning.subject import Subject, everyday_sets
from burnish.learning.teacher import Answer, lessons_of, teacher_answers
from burnish.maths.intervals import Interval, interval
from burnish.maths.strength import largest_within
from burnish.model.imitation import Lesson, SymmetricEdit, log_probabilities
from burnish.model.model import Model
from burnish.model.scoring import Candidate, Progress, TokenScores, likelihood_changes, score
from burnish.options import EvaluateOptions, LearnOptions
from burnish.prompts import Prompt, PromptSet
from burnish.prompts.domains import load_protect

RESERVE = 0.93  # of the budget: prompts that nothing was chosen by move a little more than those that were
P95_RATIO, RMS_RATIO = 7.0, 4.0  # budgets that the 95th percentile and the root mean square over tokens may be
SCALES = (0.7, 1.0, 1.4)  # of the learnt gains, measured; the last is the most there is where the budget leaves room
SHRINK = 0.8  # what repeated runs of words take off the gains at a time
SHRINKINGS = 1
SAMPLED = 24  # questions that the edited model answers itself while it learns
SAMPLED_TOKENS = 56  # of those answers: long enough to loop
WARM = 0.7  # temperature of the half of them that is not greedy
READ = 12  # held-out prompts answered in full, to be read and to count repetition
READ_TOKENS = 48
REFERENCE_TOKENS = 48
HARMFUL, REFUSAL_TOKENS = 12, 20  # requests that should be declined, and how far their answers are read


@dataclass(frozen=True)
class Damage:
    """KL(base || enhanced) on the base model's own answers to everyday and protect prompts, nats per token."""

    kl: Interval  # over prompts, of each prompt's mean
    p95: float  # over tokens
    rms: float
    flips: float  # share of tokens whose most likely successor changed
    tokens: int

    @staticmethod
    def of(scores: Sequence[TokenScores], seed: int) -> "Damage":
        kl = torch.cat([s.kl for s in scores])
        means = torch.stack([s.kl.mean() for s in scores])
        return Damage(
            kl=interval(means, seed=seed),
            p95=float(kl.quantile(0.95)),
            rms=float(kl.square().mean().sqrt()),
            flips=float(torch.cat([s.flipped for s in scores]).double().mean()),
            tokens=len(kl),
        )

    def load(self, budget: float) -> float:
        """Use of the tightest bound; 1 is the limit."""
        return max(self.kl.mean, self.p95 / P95_RATIO, self.rms / RMS_RATIO) / budget


@dataclass(frozen=True)
class Taught:
    """What a speciality's prompts show that nothing was chosen by; nats per token."""

    name: str
    prompts: int
    distance: float  # KL(teacher || base) on the teacher's answers
    removed: Interval  # share of it that the enhancement removes
    likelihood: Interval  # change of log p of the teacher's answers
    teacher_likelihood: float  # the same for the teacher itself
    references: Interval | None  # change of log p of reference answers
    teacher_references: float | None


@dataclass(frozen=True)
class Refusals:
    """Of harmful requests: how many the base model declined, the enhanced one, and both."""

    asked: int
    base: int
    enhanced: int
    kept: int


@dataclass(frozen=True)
class Learned:
    """The answer of learning. With `abstained` every gain is zero."""

    enhancement: Enhancement
    abstained: bool
    reason: str
    teachers: tuple[str, ...]
    scale: float  # of the learnt gains, by measured damage
    damage: Damage  # on the report half
    taught: tuple[Taught, ...]  # one a speciality
    repetition: tuple[float, float]  # share of repeated 4-grams in the speciality's greedy answers: base, enhanced
    refusals: Refusals
    samples: tuple[Sample, ...]
    questions: int
    answers: int  # of the teacher, worth learning from
    forward_tokens: int  # cost, in tokens of a forward pass
    model: str
    dtype: str
    options: LearnOptions
    seconds: float

    @property
    def check(self) -> Check:
        """The closing check of an output: damage on everyday prompts, repetition in the speciality's answers."""
        damage, (base, enhanced) = self.damage, self.repetition
        return Check(damage.kl.n, damage.tokens, damage.kl.mean, damage.p95, damage.flips, base, enhanced)


def learn(
    model: Model, subjects: Sequence[Subject], options: LearnOptions | None = None, *, progress: Progress | None = None
) -> Learned:
    """Learns directions and gains for one speciality or several, within one budget of damage.

    Args:
        model: the base model. Its weights are not changed.
        subjects: specialities, each with its own teacher, and how much each counts.
        options: budget, sizes and the seed.
        progress: told of every part that takes long.

    Returns:
        The enhancement and what it was measured to do. It abstains where the distance to the teacher did not surely shrink on
        held-out prompts: a random edit only adds to that distance.

    Raises:
        InputError: no speciality, or specialities in two languages.
        ModelError: the teacher gave hardly any answer worth learning from.
    """
    options = options or LearnOptions()
    started = time.perf_counter()
    if not subjects:
        raise InputError("There is no speciality to learn. Pass a domain, or an expert's prompt.")
    if all(s.weight < 0 for s in subjects):
        raise InputError(
            "Every weight is negative: there is nothing to strengthen. Give one speciality a positive weight."
        )
    if len({s.language for s in subjects}) > 1:
        raise InputError(
            "The mix joins specialities of two languages, whose everyday prompts differ. Learn them apart."
        )
    sizes = EvaluateOptions(tokens=options.everyday_tokens, seed=options.seed)
    held, measured, reported = everyday_sets(subjects, options)
    lessons, questions = _lessons(model, subjects, options, progress)
    calm = greedy_answers(model, held, sizes, progress)
    items = answered_items(model, calm)
    everyday = [Lesson(i, t) for i, t in zip(items, log_probabilities(model, items), strict=True)]
    unfinished = cache_file("learning", _identity(model, subjects, options), ".safetensors")

    def student(edit: SymmetricEdit) -> list[Lesson]:
        return _own_lessons(model, subjects, learned_enhancement(model, edit, subjects, options), options)

    found = descend(model, lessons, everyday, student, options, unfinished=unfinished, progress=progress)
    learnt = learned_enhancement(model, found.edit, subjects, options)
    scale = _scale(model, learnt, greedy_answers(model, measured, sizes, progress), options, progress)
    learnt, scale, repeated, samples = _without_loops(model, learnt, scale, subjects, options, progress)
    candidate = [Candidate("learned", learnt)]
    rows = score(model, answered_items(model, greedy_answers(model, reported, sizes, progress)), candidate).candidates[
        0
    ]
    damage = Damage.of(rows, options.seed)
    taught = tuple(_taught(model, s, learnt, options, progress) for s in subjects)
    wanted = [t for t, s in zip(taught, subjects, strict=True) if s.weight > 0]
    abstained = not any(t.removed.low > 0 for t in wanted)
    learnt = with_reports(model, learnt, _joined([s.held_out for s in subjects]), reported)
    reason = "the distance to the teacher did not surely shrink on held-out prompts" if abstained else ""
    remove(unfinished)
    return Learned(
        enhancement=learnt.scaled(0) if abstained else learnt,
        abstained=abstained,
        reason=reason,
        teachers=tuple(s.teacher.name for s in subjects),
        scale=scale,
        damage=damage,
        taught=taught,
        repetition=repeated,
        refusals=_refusals(model, learnt, progress),
        samples=samples,
        questions=questions,
        answers=len(lessons),
        forward_tokens=cost_of(lessons, everyday, options),
        model=model.name,
        dtype=str(model.network.dtype).removeprefix("torch."),
        options=options,
        seconds=time.perf_counter() - started,
    )


def cost_of(taught: Sequence[Lesson], everyday: Sequence[Lesson], options: LearnOptions) -> int:
    """Tokens of a forward pass that the steps take: a backward pass without weights' gradients costs as much as a forward one."""
    means = [sum(len(x.item.prompt) + len(x.item.answer) for x in rows) / len(rows) for rows in (taught, everyday)]
    return round(2 * options.steps * (options.rows * means[0] + options.everyday_rows * means[1]))


def _identity(model: Model, subjects: Sequence[Subject], options: LearnOptions) -> dict[str, object]:
    """Everything that the learnt directions depend on."""
    return {
        "model": model.fingerprint,
        "dtype": str(model.network.dtype),
        "subjects": [[s.name, s.teacher.name, s.questions.hash, s.weight] for s in subjects],
        "options": asdict(options),
    }


def _questions(subjects: Sequence[Subject], options: LearnOptions) -> list[PromptSet]:
    """Each subject's share of the questions, by weight, spread over its own; the longest quarter costs too much and is left out."""
    total = sum(abs(s.weight) for s in subjects)
    found = []
    for subject in subjects:
        sizes = sorted(sum(len(text) for _, text in p.messages) for p in subject.questions.prompts)
        longest = sizes[3 * len(sizes) // 4]
        short = (p for p in subject.questions.prompts if sum(len(text) for _, text in p.messages) <= longest)
        count = max(4, round(options.prompts * abs(subject.weight) / total))
        found.append(PromptSet(subject.questions.name, tuple(short)).spread(count))
    return found


def _joined(sets: Sequence[PromptSet]) -> PromptSet:
    return PromptSet(sets[0].name, tuple(p for s in sets for p in s.prompts))


def _lessons(
    model: Model, subjects: Sequence[Subject], options: LearnOptions, progress: Progress | None
) -> tuple[list[Lesson], int]:
    lessons: list[Lesson] = []
    asked = _questions(subjects, options)
    for subject, questions in zip(subjects, asked, strict=True):
        if subject.weight > 0:
            answers = teacher_answers(model, subject.teacher, questions, options.tokens, options.seed, progress)
        else:  # what is toned down: the model's own answers, away from the teacher's
            rows = greedy_answers(model, questions, EvaluateOptions(tokens=options.tokens), progress)
            answers = [Answer(row.prompt, row.answer) for row in rows]
        if len(answers) < 4:
            raise ModelError(
                f"Under the teacher's prompt the model gave {len(answers)} answers worth learning from to {len(questions)} questions: "
                "the others end at once, repeat themselves or refuse. Use another prompt or other questions."
            )
        guidance = options.guidance if subject.weight > 0 else -1.0
        lessons += lessons_of(model, subject.teacher, answers, guidance=guidance, loops=False)
    return lessons, sum(map(len, asked))


def _own_lessons(
    model: Model, subjects: Sequence[Subject], enhancement: Enhancement, options: LearnOptions
) -> list[Lesson]:
    """The edited model's own answers, half of them greedy, with the teacher's predictions: repeating a run of words is no longer
    likely in them."""
    lessons: list[Lesson] = []
    for subject, questions in zip(subjects, _questions(subjects, options), strict=True):
        if subject.weight < 0:
            continue
        asked = questions.spread(max(4, SAMPLED // len(subjects)))
        prompts = [model.tokens(p) for p in asked.prompts]
        with model.enhanced(enhancement):
            answers = model.continuations(prompts[::2], SAMPLED_TOKENS)
            sampled = model.samples(prompts[1::2], SAMPLED_TOKENS, seed=options.seed + 1, temperature=WARM)
        order = [*asked.prompts[::2], *asked.prompts[1::2]]
        rows = [Answer(Prompt(p.messages), a) for p, a in zip(order, [*answers, *sampled], strict=True) if len(a) > 1]
        lessons += lessons_of(model, subject.teacher, rows, guidance=options.guidance, loops=False)
    return lessons


def _scale(
    model: Model, learnt: Enhancement, rows: Sequence[Answered], options: LearnOptions, progress: Progress | None
) -> float:
    """The largest multiple of the gains whose measured damage keeps the budget, from one pass over several."""
    candidates = [Candidate("scaled", learnt.scaled(scale)) for scale in SCALES]
    found = score(model, answered_items(model, rows), candidates, progress=progress).candidates
    loads = [Damage.of(scores, options.seed).load(RESERVE * options.budget) for scores in found]
    return largest_within(SCALES, loads)


def _without_loops(
    model: Model,
    learnt: Enhancement,
    scale: float,
    subjects: Sequence[Subject],
    options: LearnOptions,
    progress: Progress | None,
) -> tuple[Enhancement, float, tuple[float, float], tuple[Sample, ...]]:
    """The gains, taken down while greedy answers to the speciality's prompts repeat runs of words more than the base model's do."""
    subject = next(s for s in subjects if s.weight > 0)
    asked = subject.held_out.spread(READ)
    base = base_answers(model, asked, READ_TOKENS, progress=progress)
    for attempt in range(SHRINKINGS + 1):
        enhancement = learnt.scaled(scale)
        if progress is not None:
            progress("reading enhanced answers", attempt, SHRINKINGS + 1)
        with model.enhanced(enhancement):
            answers = model.continuations([model.tokens(p) for p in asked.prompts], READ_TOKENS)
        repeated = (repetition(base), repetition(answers))
        if repeated[1] <= repeated[0] + options.repetition or attempt == SHRINKINGS:
            break
        scale *= SHRINK
    texts = [[model.tokenizer.decode(a, skip_special_tokens=True).strip() for a in rows] for rows in (base, answers)]
    samples = tuple(Sample(p.text, b, e) for p, b, e in zip(asked.prompts, *texts, strict=True))
    return enhancement, scale, repeated, samples


def _refusals(model: Model, enhancement: Enhancement, progress: Progress | None) -> Refusals:
    harmful = load_protect(category="harmful")
    asked = PromptSet(harmful.name, tuple(Prompt(p.messages) for p in harmful.prompts)).spread(HARMFUL)
    base = base_answers(model, asked, REFUSAL_TOKENS, progress=progress)
    with model.enhanced(enhancement):
        enhanced = model.continuations([model.tokens(p) for p in asked.prompts], REFUSAL_TOKENS)
    declined = [
        [refuses(str(model.tokenizer.decode(a, skip_special_tokens=True))) for a in x] for x in (base, enhanced)
    ]
    both = sum(a and b for a, b in zip(*declined, strict=True))
    return Refusals(len(asked), sum(declined[0]), sum(declined[1]), both)


def _taught(
    model: Model, subject: Subject, enhancement: Enhancement, options: LearnOptions, progress: Progress | None
) -> Taught:
    """Distance to the teacher, and likelihood of its answers and of reference answers, on held-out prompts."""
    held = subject.held_out.spread(options.reported)
    answers = teacher_answers(model, subject.teacher, held, options.tokens, options.seed + 7, progress)
    if len(answers) < 2:
        raise ModelError(
            f"Under the teacher's prompt the model gave {len(answers)} answers worth measuring to {len(held)} held-out prompts. Use "
            "another prompt or other questions."
        )
    plain = [Answered(a.question, a.tokens) for a in answers]
    items = answered_items(model, plain)
    targets = [lesson.target for lesson in lessons_of(model, subject.teacher, answers)]
    base = log_probabilities(model, items)
    with model.enhanced(enhancement):
        edited = log_probabilities(model, items)
    before, after = ([_kl(t, p) for t, p in zip(targets, rows, strict=True)] for rows in (base, edited))
    total = torch.stack([x.mean() for x in before])
    gone = total - torch.stack([x.mean() for x in after])
    likely = [_likelihoods(rows, [a.tokens for a in answers]) for rows in (base, edited, targets)]
    references, teacher_references = _references(model, subject, enhancement, options)
    return Taught(
        name=subject.name,
        prompts=len(answers),
        distance=float(total.mean()),
        removed=interval(gone / total.mean().clamp_min(1e-9), seed=options.seed),
        likelihood=interval(likely[1] - likely[0], seed=options.seed),
        teacher_likelihood=float((likely[2] - likely[0]).mean()),
        references=references,
        teacher_references=teacher_references,
    )


def _references(
    model: Model, subject: Subject, enhancement: Enhancement, options: LearnOptions
) -> tuple[Interval | None, float | None]:
    """Change of log p of reference answers: (enhanced, teacher)."""
    rows = subject.references.spread(options.reported).prompts
    tokens = [model.encode(p.answer or "")[:REFERENCE_TOKENS] for p in rows]
    answers = [Answer(Prompt(p.messages), t) for p, t in zip(rows, tokens, strict=True) if t]
    if len(answers) < 2:
        return None, None
    items = answered_items(model, [Answered(a.question, a.tokens) for a in answers])
    scores = score(model, items, [Candidate("learned", enhancement)])
    taught = lessons_of(model, subject.teacher, answers)
    teacher = _likelihoods([x.target for x in taught], [a.tokens for a in answers])
    base = torch.stack([s.log_probability.mean() for s in scores.base])
    changes = likelihood_changes(scores.base, scores.candidates[0])
    return interval(changes, seed=options.seed), float((teacher - base).mean())


def _kl(target: Tensor, predicted: Tensor) -> Tensor:
    """KL(target || predicted) at each token; log probabilities [tokens, vocabulary]."""
    exact = target.double()
    return (exact.exp() * (exact - predicted.double())).sum(-1)


def _likelihoods(predicted: Sequence[Tensor], answers: Sequence[list[int]]) -> Tensor:
    """Mean log probability per token of each answer, [answers]."""
    rows = zip(predicted, answers, strict=True)
    return torch.stack([p.double().gather(1, torch.tensor(a)[:, None]).mean() for p, a in rows])
