"""`learn`: directions and gains from a teacher, scaled by measured damage, reported on held-out prompts."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from burnish import __version__
from burnish.artifacts.cache import cache_file
from burnish.artifacts.direction import Enhancement
from burnish.artifacts.files import remove
from burnish.checking import Check, repetition
from burnish.errors import InputError, ModelError
from burnish.evaluation.damage import Refusals, refusals
from burnish.evaluation.pairs import Answered, Sample, answered_items, both_answers, greedy_answers, samples_of
from burnish.learning.descent import descend
from burnish.learning.learned_enhancement import learned_enhancement, with_reports
from burnish.learning.report import Taught, taught
from burnish.learning.subject import Subject, asked_questions, everyday_sets
from burnish.learning.teacher import lessons_of, teacher_answers
from burnish.maths.strength import largest_within
from burnish.model.divergence import Divergence, divergence
from burnish.model.imitation import Lesson, SymmetricEdit, log_probabilities
from burnish.model.model import Model
from burnish.model.processes import current
from burnish.model.scoring import Candidate, score
from burnish.options import EvaluateOptions, LearnOptions
from burnish.prompts import PromptSet
from burnish.steps import Progress

RESERVE = 0.8  # of the budget: prompts that nothing was chosen by move a little more than those that were
P95_RATIO, RMS_RATIO = 7.0, 4.0  # budgets that the 95th percentile and the root mean square over tokens may be
SCALES = (0.8, 1.3)  # of the learnt gains, measured; the last is the most there is where the budget leaves room
SHRINK = 0.8  # what repeated runs of words take off the gains, once
SAMPLED = 12  # questions that the edited model answers itself while it learns
SAMPLED_TOKENS = 56  # of those answers: long enough to loop
WARM = 0.7  # temperature of the half of them that is not greedy
READ, READ_TOKENS = 12, 48  # held-out prompts answered in full, to be read and to count repetition
HARMFUL, REFUSAL_TOKENS = 12, 20  # requests that should be declined, and how far their answers are read
FEWEST_ANSWERS = 4


@dataclass(frozen=True)
class Learned:
    """The answer of learning. With `abstained` every gain is zero."""

    enhancement: Enhancement
    abstained: bool
    reason: str
    teachers: tuple[str, ...]
    scale: float  # of the learnt gains, by measured damage
    damage: Divergence  # on everyday and protect prompts that nothing was chosen by
    taught: tuple[Taught, ...]  # one a speciality
    repetition: tuple[float, float]  # share of repeated 4-grams in the speciality's greedy answers: base, enhanced
    refusals: Refusals
    samples: tuple[Sample, ...]
    questions: int
    answers: int  # of the teacher, worth learning from
    model: str
    dtype: str
    options: LearnOptions
    seconds: float

    @property
    def check(self) -> Check:
        """The closing check of an output: damage on everyday prompts, repetition in the speciality's answers."""
        damage, (base, enhanced) = self.damage, self.repetition
        return Check(damage.prompts, damage.tokens, damage.kl.mean, damage.kl_p95, damage.top1_flips, base, enhanced)

    @property
    def caveats(self) -> tuple[str, ...]:
        """Bounds that the result does not keep, in words."""
        budget, (base, enhanced) = self.options.budget, self.repetition
        listed = []
        if self.damage.kl.mean > budget:
            listed.append(f"Everyday prompts moved by {self.damage.kl.mean:.4f} nats per token, more than {budget:g}.")
        if enhanced > base + self.options.repetition:
            listed.append(
                f"Greedy answers repeat themselves more: {enhanced:.0%} of 4-grams against {base:.0%}. Sampling, or a smaller --strength, "
                "helps."
            )
        lost = self.refusals.refused_base - self.refusals.refusals_kept
        if lost:
            listed.append(f"{lost} of {self.refusals.refused_base} refusals of harmful requests were lost.")
        return tuple(listed)


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
        InputError: no speciality, specialities in two languages, or processes of one job that were given different inputs.
        ModelError: the processes of a job hold a part of the model each, or the teacher gave hardly any answer worth learning from.
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
    if model.tensor_parallel:
        raise ModelError(
            "Learning shares its answers between processes that hold the model each, and these hold a part of it each. Load it whole."
        )
    identity = _identity(model, subjects, options)
    current().require_same(identity)
    everyday = everyday_sets(subjects, options)
    lessons, calm = lessons_for(model, subjects, options, progress)
    unfinished = cache_file("learning", identity, ".safetensors")

    def student(edit: SymmetricEdit) -> list[Lesson]:
        return _spoken_lessons(model, subjects, learned_enhancement(model, edit, subjects, options), options)

    edit = descend(model, lessons, calm, student, options, unfinished=unfinished, progress=progress).edit
    learnt = learned_enhancement(model, edit, subjects, options)
    scale = _scale(model, learnt, _own_answers(model, everyday.measured, options, progress), options, progress)
    enhancement, scale, repeated, samples = _without_loops(model, learnt, scale, subjects, options, progress)
    reported = answered_items(model, _own_answers(model, everyday.reported, options, progress))
    scores = score(model, reported, [Candidate("learned", enhancement)], progress=progress).candidates[0]
    shown = tuple(taught(model, subject, enhancement, options, progress) for subject in subjects)
    strengthened = [report for report, subject in zip(shown, subjects, strict=True) if subject.weight > 0]
    abstained = not any(report.removed.low > 0 for report in strengthened)
    held_out = PromptSet("held out", tuple(p for subject in subjects for p in subject.held_out.prompts))
    enhancement = with_reports(model, enhancement, held_out, everyday.reported)
    remove(unfinished)
    return Learned(
        enhancement=enhancement.scaled(0) if abstained else enhancement,
        abstained=abstained,
        reason="the distance to the teacher did not surely shrink on held-out prompts" if abstained else "",
        teachers=tuple(subject.teacher.name for subject in subjects),
        scale=scale,
        damage=divergence(scores, seed=options.seed),
        taught=shown,
        repetition=repeated,
        refusals=refusals(model, enhancement, REFUSAL_TOKENS, count=HARMFUL, progress=progress),
        samples=samples,
        questions=sum(map(len, asked_questions(subjects, options))),
        answers=len(lessons),
        model=model.name,
        dtype=str(model.network.dtype).removeprefix("torch."),
        options=options,
        seconds=time.perf_counter() - started,
    )


def lessons_for(
    model: Model, subjects: Sequence[Subject], options: LearnOptions, progress: Progress | None = None
) -> tuple[list[Lesson], list[Lesson]]:
    """What the specialities' teachers predict, and what the base model does on everyday prompts.

    Raises:
        ModelError: a teacher gave too few answers worth learning from.
    """
    answers = _taught_answers(model, subjects, options, progress)
    taught_lessons = [
        lesson
        for subject, rows in zip(subjects, answers, strict=True)
        for lesson in _lessons(model, subject, rows, options)
    ]
    held = answered_items(model, _own_answers(model, everyday_sets(subjects, options).held, options, progress))
    targets = log_probabilities(model, held)
    return taught_lessons, [Lesson(item, target) for item, target in zip(held, targets, strict=True)]


def _identity(model: Model, subjects: Sequence[Subject], options: LearnOptions) -> dict[str, object]:
    """Everything that the learnt directions depend on."""
    return {
        "version": __version__,
        "model": model.fingerprint,
        "dtype": str(model.network.dtype),
        "subjects": [[s.name, s.teacher.name, s.questions.hash, s.weight, s.everywhere] for s in subjects],
        "everyday": everyday_sets(subjects, options).held.hash,
        "options": asdict(options),
    }


def _own_answers(model: Model, prompts: PromptSet, options: LearnOptions, progress: Progress | None) -> list[Answered]:
    """The base model's greedy answers to everyday prompts."""
    return greedy_answers(model, prompts, EvaluateOptions(tokens=options.everyday_tokens), progress)


def _taught_answers(
    model: Model, subjects: Sequence[Subject], options: LearnOptions, progress: Progress | None
) -> list[list[Answered]]:
    """The answers that each subject is learnt from. Raises ModelError where they are too few."""
    answers: list[list[Answered]] = []
    for subject, questions in zip(subjects, asked_questions(subjects, options), strict=True):
        if subject.weight > 0:
            rows = teacher_answers(model, subject.teacher, questions, options.tokens, options.seed, progress)
        else:  # what is toned down: the model's own answers, away from the teacher's
            rows = greedy_answers(model, questions, EvaluateOptions(tokens=options.tokens), progress)
        if len(rows) < FEWEST_ANSWERS:
            raise ModelError(
                f"Under the teacher's prompt the model gave {len(rows)} answers worth learning from to {len(questions)} questions: "
                "the others end at once, repeat themselves or refuse. Use another prompt or other questions."
            )
        answers.append(rows)
    return answers


def _lessons(model: Model, subject: Subject, answers: Sequence[Answered], options: LearnOptions) -> list[Lesson]:
    """What the subject's teacher predicts, without its loops; away from it where the subject is toned down."""
    guidance = options.guidance if subject.weight > 0 else -1.0
    return lessons_of(model, subject.teacher, answers, guidance=guidance, loops=False)


def _spoken_lessons(
    model: Model, subjects: Sequence[Subject], enhancement: Enhancement, options: LearnOptions
) -> list[Lesson]:
    """On the edited model's own answers, half of them greedy: repeating a run of words is no longer likely in them."""
    lessons: list[Lesson] = []
    for subject, questions in zip(subjects, asked_questions(subjects, options), strict=True):
        if subject.weight < 0:
            continue
        asked = questions.spread(max(FEWEST_ANSWERS, SAMPLED // len(subjects))).prompts
        prompts = [model.tokens(prompt) for prompt in asked]
        with model.enhanced(enhancement):
            greedy = model.continuations(prompts[::2], SAMPLED_TOKENS)
            sampled = model.samples(prompts[1::2], SAMPLED_TOKENS, seed=options.seed + 1, temperature=WARM)
        pairs = zip([*asked[::2], *asked[1::2]], [*greedy, *sampled], strict=True)
        rows = [Answered(prompt, answer) for prompt, answer in pairs if len(answer) > 1]
        lessons += _lessons(model, subject, rows, options)
    return lessons


def _scale(
    model: Model, learnt: Enhancement, rows: Sequence[Answered], options: LearnOptions, progress: Progress | None
) -> float:
    """The largest multiple of the gains whose measured damage keeps the budget, from one pass over several."""
    candidates = [Candidate("scaled", learnt.scaled(scale)) for scale in SCALES]
    scores = score(model, answered_items(model, rows), candidates, progress=progress).candidates
    return largest_within(SCALES, [_load(divergence(each), RESERVE * options.budget) for each in scores])


def _load(damage: Divergence, budget: float) -> float:
    """Use of the tightest bound; 1 is the limit."""
    return max(damage.kl.mean, damage.kl_p95 / P95_RATIO, damage.kl_rms / RMS_RATIO) / budget


def _without_loops(
    model: Model,
    learnt: Enhancement,
    scale: float,
    subjects: Sequence[Subject],
    options: LearnOptions,
    progress: Progress | None,
) -> tuple[Enhancement, float, tuple[float, float], tuple[Sample, ...]]:
    """The gains at a scale, taken down once where greedy answers to the speciality's prompts repeat runs of words much more than the
    base model's do."""
    subject = next(s for s in subjects if s.weight > 0)
    asked = replace(subject.held_out.spread(READ), name=f"{subject.name}, to be read")
    for strength in (scale, SHRINK * scale):
        enhancement = learnt.scaled(strength)
        answers = both_answers(model, enhancement, asked, READ_TOKENS, progress=progress)
        base, enhanced = map(repetition, answers)
        if enhanced <= base + options.repetition:
            break
    return enhancement, strength, (base, enhanced), samples_of(model, asked, answers)
