"""`tune`: the gains with the most effect within a budget of damage, what they are worth, and when to leave the model alone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from burnish.artifacts.direction import Direction, Enhancement
from burnish.checking import repetition
from burnish.errors import InputError, WrongModelError
from burnish.evaluation.damage import perplexity, prose_items
from burnish.evaluation.effect import Effect, effect_from
from burnish.evaluation.pairs import PairKind, both_answers
from burnish.maths.intervals import Interval, interval, interval_above
from burnish.maths.strength import Search
from burnish.mix import Mix
from burnish.model.model import Model
from burnish.model.scoring import Candidate, score
from burnish.options import TuneOptions
from burnish.prompts import PromptSet
from burnish.prompts.domains import load_domain
from burnish.steps import Progress
from burnish.tuning.aims import Scorer, Speciality, directions_of, gather, random_template
from burnish.tuning.closed_form import Tried, at_budget, best_of, closed_form
from burnish.tuning.mixing import Alike, alike, interference, merged
from burnish.tuning.objective import Material, Point, damage_on, measure

FRONTIER = (0.25, 0.5, 1.0, 1.5, 2.0)  # multiples of the chosen gains
RESERVE = 0.95  # of the budget: prompts that nothing was chosen on move a little more than those that were
ADVICE = (
    "What may help: more prompts, or prompts that differ more from everyday ones; reference answers (--references); another "
    "--basis or window; a larger --budget. An expert system prompt costs no weights: compare it with `burnish evaluate --compare`."
)


@dataclass(frozen=True)
class FrontierPoint:
    """A strength on one half."""

    multiple: float  # of the chosen gains
    effect: float
    likelihood: tuple[float, ...]  # by aim
    shift: tuple[float | None, ...]  # None: not measured on that half
    kl: float
    kl_p95: float
    special_kl: float
    ships: bool  # within every bound, no falling likelihood, effect above zero


@dataclass(frozen=True)
class Reported:
    """The chosen gains on the half that was not used for choosing."""

    kl: Interval
    kl_p95: float
    special_kl: float
    overshoot: float  # mean KL over the budget, minus 1
    effects: dict[str, Effect]  # by "speciality: kind"


@dataclass(frozen=True)
class Tuning:
    """What tuning measured and decided: all that tuning.json holds. With `abstained` all gains are zero."""

    abstained: bool
    reason: str
    aims: tuple[tuple[str, PairKind, float, int, int], ...]  # name, kind, weight, pairs of the two halves
    above_null: Interval | None  # effect on the tuning half above that of random directions tuned in the same way
    null: tuple[float, ...]  # their effects
    chosen: FrontierPoint | None  # on the tuning half
    frontier: tuple[FrontierPoint, ...]  # on the report half
    reported: Reported | None
    interference: (
        dict[str, dict[str, float]] | None
    )  # gains of one speciality alone, and together -> likelihood of each aim
    alike: tuple[Alike, ...]
    ridge: float | None
    steps: int
    perplexity_ratio: float | None
    repetition: tuple[float, float] | None  # base, enhanced
    model: str
    dtype: str
    options: TuneOptions

    @property
    def ship_range(self) -> tuple[float, float] | None:
        """Smallest and largest multiple of the chosen gains that ships on the report half."""
        fine = [p.multiple for p in self.frontier if p.ships]
        return (min(fine), max(fine)) if fine else None


@dataclass(frozen=True)
class Tuned(Tuning):
    """The answer of tuning."""

    enhancement: Enhancement
    seconds: float


def tune(
    model: Model,
    directions: Direction | Sequence[Direction] | None = None,
    *,
    domain: str | Mix | Sequence[Speciality],
    pairs: PromptSet | None = None,
    scorer: Scorer | None = None,
    options: TuneOptions | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Chooses gains for one speciality or several at once.

    Args:
        model: the base model; its weights are not changed.
        directions: by default those that `options.basis` asks for, found on the way.
        domain: a packaged name, a mix of them (`0.6 creative-writing + 0.3 education`), or specialities made of the user's files.
        pairs: the user's own, for the first speciality.
        scorer: (prompt, answer) -> number; ranks sampled answers into pairs.
        options: basis, budget in nats per token, sizes, the seed.
        progress: told of every part that takes long.

    Returns:
        The enhancement, gains [layers, directions], with the frontier of strengths and what was measured.

    Raises:
        InputError: a domain is unknown, or there is nothing to aim at.
        WrongModelError: directions are of another model.
    """
    options = options or TuneOptions()
    started = time.perf_counter()
    specialities = _specialities(domain, pairs)
    used, owners = _directions(model, directions, specialities, options, progress)
    plan = Enhancement.of(used)
    plan.require(model.fingerprint, model.anatomy.layers, model.anatomy.hidden_size)
    if options.merge is not None:
        plan, owners = merged(plan, owners, options.merge)
    too_alike = alike(plan)
    material = gather(model, specialities, options, scorer=scorer, progress=progress)
    nulls = [random_template(plan, options.seed + i) for i in range(options.random_directions)]
    result = closed_form(model, plan, nulls, material, options, progress=progress)
    best, reason = result.best, ""
    above = _above(result.first, result.null, options)
    bounds: Settled | None = None
    if best is None:
        reason = "no gains within the bounds have an effect without making good answers less likely"
    elif above is None or above.low <= 0:
        best, reason = None, f"the effect is not above that of random directions tuned in the same way ({above})"
    else:
        best, bounds = settle(model, best, material, specialities[0].domain.language, options, progress)
        if best is None:
            reason = "no strength tried keeps perplexity, repetition and all everyday prompts within their bounds and has an effect"
    chosen = plan if best is None else best.enhancement
    frontier: tuple[FrontierPoint, ...] = ()
    reported, table = None, None
    if best is not None:
        frontier, reported = _report(model, chosen, nulls, material, options, progress)
        if len(specialities) > 1:
            table = interference(model, chosen, owners, material, progress=progress)
    return Tuned(
        enhancement=chosen,
        abstained=best is None,
        reason=reason,
        aims=tuple((a.name, a.kind, a.weight, len(a.pairs.tune), len(a.pairs.report)) for a in material.aims),
        above_null=above,
        null=tuple(p.effect for p in result.null),
        chosen=None if best is None else _frontier_point(1.0, best.point, material, options),
        frontier=frontier,
        reported=reported,
        interference=table,
        alike=too_alike,
        ridge=result.ridge,
        steps=result.steps,
        perplexity_ratio=None if bounds is None else bounds.perplexity_ratio,
        repetition=None if bounds is None else bounds.repetition,
        model=model.name,
        dtype=str(model.network.dtype).removeprefix("torch."),
        options=options,
        seconds=time.perf_counter() - started,
    )


def _specialities(domain: str | Mix | Sequence[Speciality], pairs: PromptSet | None) -> list[Speciality]:
    if isinstance(domain, str):
        domain = Mix.parse(domain)
    if isinstance(domain, Mix):
        domain = [Speciality(load_domain(term.name), term.weight) for term in domain.terms]
    if not domain:
        raise InputError("There is no speciality to tune for. Pass a domain or a mix of them.")
    if pairs is not None:
        domain = [replace(domain[0], pairs=pairs), *domain[1:]]
    if all(s.weight < 0 for s in domain):
        raise InputError(
            "Every weight is negative: there is nothing to strengthen. Give one speciality a positive weight."
        )
    if len({s.domain.language for s in domain}) > 1:
        raise InputError("The mix joins specialities of two languages, whose everyday prompts differ. Tune them apart.")
    return list(domain)


def _directions(
    model: Model,
    directions: Direction | Sequence[Direction] | None,
    specialities: Sequence[Speciality],
    options: TuneOptions,
    progress: Progress | None,
) -> tuple[list[Direction], list[str]]:
    """All directions, and whose each is."""
    if directions is not None:
        listed = [directions] if isinstance(directions, Direction) else list(directions)
        for direction in listed:
            if direction.provenance.fingerprint != model.fingerprint:
                raise WrongModelError(
                    f"A direction was made for {direction.provenance.model}, not for this model. Find it again on this model."
                )
        return listed, [d.provenance.enhance for d in listed]
    used: list[Direction] = []
    owners: list[str] = []
    for speciality in specialities:
        new = directions_of(model, speciality, options, progress)
        used += new
        owners += [speciality.domain.name] * len(new)
    return used, owners


def _above(first: Tried | None, null: Sequence[Point], options: TuneOptions) -> Interval | None:
    if first is None:
        return None
    return interval_above(first.point.rows[None], torch.stack([p.rows for p in null]), seed=options.seed)


@dataclass(frozen=True)
class Settled:
    """What bounds beside the chosen ones measure on the tuning half."""

    kl: float  # on all everyday prompts: the sample that the gains were chosen on may have been lucky
    perplexity_ratio: float  # of neutral prose
    repetition: tuple[float, float]  # of everyday answers: base, enhanced

    def load(self, options: TuneOptions) -> float:
        """The tightest bound's use: 1 is the limit."""
        risen = self.repetition[1] - self.repetition[0]
        bounds = (RESERVE * options.budget, options.perplexity_floor - 1, options.repetition_floor)
        return max(v / max(b, 1e-9) for v, b in zip((self.kl, self.perplexity_ratio - 1, risen), bounds, strict=True))


def settle(
    model: Model,
    best: Tried,
    material: Material,
    language: str,
    options: TuneOptions,
    progress: Progress | None = None,
) -> tuple[Tried | None, Settled]:
    """The chosen gains, weakened until everyday prompts keep the budget and prose and answers their floors, and what those measure;
    None where no strength does and has an effect."""
    prompts = PromptSet("everyday", tuple(row.prompt for row in material.general[0]))
    prose = prose_items(model, language, options.prompts)
    search = Search([1.0], most=1.0)
    measured: dict[float, Settled] = {}
    while search.asked:
        scale = search.asked[0]
        plan = best.enhancement.scaled(scale)
        scores = score(model, prose, [Candidate("settled", plan)], progress=progress)
        before, after = both_answers(model, plan, prompts, options.tokens, progress=progress)
        measured[scale] = bounds = Settled(
            float(damage_on(model, material.everyday[0], [plan], progress=progress).mean()),
            perplexity(scores.candidates[0]) / perplexity(scores.base),
            (repetition(before), repetition(after)),
        )
        search.tell([bounds.load(options)])
    (scale,) = search.strengths
    if scale == 1:
        return best, bounds
    plan = best.enhancement.scaled(scale)
    point = measure(model, material, [Candidate("settled", plan)], progress=progress)[0]
    return best_of([Tried(plan, point)], material, options), measured.get(scale, bounds)


def _frontier_point(multiple: float, point: Point, material: Material, options: TuneOptions) -> FrontierPoint:
    ships = point.ships(material.aims, options)
    return FrontierPoint(
        multiple, point.effect, point.likelihood, point.shift, point.kl, point.kl_p95, point.special_kl, ships
    )


def _report(
    model: Model,
    chosen: Enhancement,
    nulls: Sequence[Enhancement],
    material: Material,
    options: TuneOptions,
    progress: Progress | None,
) -> tuple[tuple[FrontierPoint, ...], Reported]:
    """The frontier and the chosen point on the report half, above random directions (same gains in every layer) at the budget."""
    flat = [replace(n, gains=torch.ones_like(n.gains)) for n in nulls]
    randoms = at_budget(model, flat, material, options, progress)
    candidates = [Candidate("tuned", chosen.scaled(m)) for m in FRONTIER] + [Candidate("random", r) for r in randoms]
    points = measure(model, material, candidates, report=True, progress=progress)
    # The sample chosen on may be lucky or not: whether a strength ships is judged on every everyday prompt of the half.
    everyday = damage_on(model, material.everyday[1], [chosen.scaled(m) for m in FRONTIER], progress=progress)
    frontier = tuple(
        _frontier_point(m, replace(p, kl=float(kl.mean())), material, options)
        for m, p, kl in zip(FRONTIER, points[: len(FRONTIER)], everyday, strict=True)
    )
    at = FRONTIER.index(1.0)
    point, drawn = points[at], range(len(FRONTIER), len(points))
    effects = {}
    for number, aim in enumerate(material.aims):
        drifts = torch.stack([points[i].changes[number][0] - points[i].changes[number][1] for i in drawn])
        effects[f"{aim.name}: {aim.kind}"] = effect_from(
            point.changes[number], aim.kind, point.tokens[number], drifts, seed=options.seed
        )
    kl = interval(everyday[at], seed=options.seed)
    return frontier, Reported(kl, point.kl_p95, point.special_kl, kl.mean / options.budget - 1, effects)
