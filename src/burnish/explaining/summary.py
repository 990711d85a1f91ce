"""The summary of an explanation in sentences: the same on the page and in the terminal.

Wording follows the numbers. An effect whose interval holds zero is "no effect measured", never "no effect"; what was not measured is said
to be not measured.
"""

from dataclasses import dataclass

from burnish.checking import FINE
from burnish.evaluation.damage import Damage
from burnish.evaluation.effect import SLACK, Effect, word_of
from burnish.evaluation.evaluation_tables import KINDS
from burnish.explaining.facts import Explanation
from burnish.explaining.formats import label, number, percent
from burnish.maths.intervals import Interval

CARRIED = 0.5  # of the squared length in four coordinates: above, the direction may measure size, not content
FEW = 20  # prompts or pairs below which intervals are wide and their edges unsteady
MORE_REPEATED = 0.05  # rise of the share of repeated 4-grams that is worth a warning
MORE_PERPLEXED = 1.05
EACH = 3  # directions that get a sentence each
NAME = 60  # letters of a name in a sentence


@dataclass(frozen=True)
class Card:
    """One of the three answers at the top of the page."""

    title: str
    figure: str  # the number to remember
    unit: str  # what it is
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """Verdict, three cards and the caveats that apply."""

    verdict: str
    ships: bool | None  # None: not enough was measured to say
    cards: tuple[Card, Card, Card]
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """Movement of general and protect prompts, from the best measurement there is; nats per token."""

    kl: float
    interval: Interval | None
    p95: float
    prompts: int | None
    budget: float
    budgeted: bool  # the budget was asked for; otherwise it is the bound above which answers visibly change

    @property
    def within(self) -> bool:
        return self.kl <= self.budget * SLACK


def summarise(facts: Explanation) -> Summary:
    """What was enhanced, how sure that is, what it cost, whether it ships, and what speaks against believing it."""
    ships, verdict = _verdict(facts)
    caveats = tuple(dict.fromkeys(_caveats(facts)))  # directions that were learnt together share a name
    return Summary(verdict, ships, (_what(facts), _sure(facts), _cost(facts)), caveats)


def effects_of(facts: Explanation) -> list[tuple[str, Effect]]:
    """(name, effect) on every kind of pairs of the evaluation."""
    return [] if facts.evaluation is None else [(KINDS[e.kind], e) for e in facts.evaluation.effects]


def cost_of(facts: Explanation) -> Cost | None:
    """Of the evaluation, or else of learning, or else of the short check; None where nothing was measured."""
    budgeted = facts.learning is not None
    budget = FINE if facts.learning is None else facts.learning.options.budget
    measured = facts.evaluation or facts.learning
    if measured is not None:
        damage = measured.damage
        return Cost(damage.kl.mean, damage.kl, damage.kl_p95, damage.prompts, budget, budgeted)
    if facts.check is not None:
        check = facts.check
        return Cost(check.kl_mean, None, check.kl_p95, check.prompts, budget, budgeted)
    if facts.dose is not None:
        dose = facts.dose.at_one
        return Cost(dose.damage.mean, dose.damage, dose.damage_p95, facts.dose.prompts, budget, budgeted)
    return None


def damage_text(cost: Cost) -> str:
    """A damage in nats per token, with its interval where it has one: 0.0104 [0.0090, 0.0118]."""
    spread = "" if cost.interval is None else f" [{cost.interval.low:.4f}, {cost.interval.high:.4f}]"
    return f"{cost.kl:.4f}{spread}"


def _edited(facts: Explanation) -> list[int]:
    return sorted({g.layer for g in facts.gains if g.asked})


def _what(facts: Explanation) -> Card:
    layers, title, model = _edited(facts), label(facts.title, NAME), label(facts.model, NAME)
    count, depth = len(facts.directions), len(facts.directions[0].quality)
    along = "one direction" if count == 1 else f"{count} directions"
    if facts.taught:
        along += " a layer"
    if layers:
        asked = [g.asked for g in facts.gains if g.asked]
        low, high = (number(v, digits=2, signed=True) for v in (min(asked), max(asked)))
        first = (
            f"{title} was strengthened in {model} ({facts.dtype}) along {along} in {len(layers)} of {depth} layers, with "
            + (f"a gain of {low}." if low == high else f"gains from {low} to {high}.")
        )
    else:
        first = f"Nothing is strengthened in {model}: every gain is zero."
    sentences = [
        f"Direction {label(d.name, NAME)}: made of {d.enhance_prompts} specialised and {d.normal_prompts} everyday prompts, layer {d.layer} chosen."
        for d in facts.contrasts
    ]
    if len(sentences) > EACH:
        sentences = [f"Directions: {', '.join(label(d.name, NAME) for d in facts.contrasts)}."]
    sentences += [
        f"{label(d.name, NAME)}: {together} directions a layer learnt from {label(d.teacher, NAME)}, on {d.enhance_prompts} questions."
        for d, together in facts.taught
    ]
    return Card("What was enhanced", f"{len(layers)} of {depth}", "layers edited", (first, *sentences))


def _sure(facts: Explanation) -> Card:
    sentences = _separations(facts)
    effects = effects_of(facts)
    for name, e in effects:
        sentences.append(
            f"Effect on {e.pairs} {name}: {e.above.short} nats per token above random directions of the same damage; "
            f"{_in_words(e)}."
        )
    shares = _shares(facts)
    sentences += [
        f"{name}: {share.short} of the distance to the teacher is gone on {share.n} held-out prompts."
        for name, share in shares
    ]
    if effects:
        name, e = effects[0]
        figure, unit = f"{e.above.mean:+.3f}", f"nats per token above random, {name}"
    elif shares:
        figure, unit = f"{shares[0][1].mean:.2f}", "of the distance to the teacher gone"
    else:
        sentences.append("The effect on answers was not measured. `burnish evaluate` measures it.")
        figure, unit = f"{facts.directions[0].at_chosen.auroc:.3f}", "AUROC on held-out prompts"
    return Card("How sure that is", figure, unit, tuple(sentences))


def _separations(facts: Explanation) -> list[str]:
    """One sentence a direction; one for all where they are many."""
    best = [d.at_chosen for d in facts.directions]
    split = [q.split_half_cosine for q in best if q.split_half_cosine is not None]
    if len(best) > EACH or facts.taught:
        halves = (
            f"; made from two halves of the prompts they have cosines of {min(split):.2f} or more with themselves"
            if split
            else ""
        )
        return [
            f"The directions separate their held-out prompts with AUROC {min(q.auroc for q in best):.3f} to "
            f"{max(q.auroc for q in best):.3f} (shuffled labels: at most {max(q.null_auroc for q in best):.3f}){halves}."
        ]
    return [
        f"Direction {label(d.name, NAME)} separates {d.held_out} held-out prompts with AUROC {q.auroc:.3f} (shuffled labels: {q.null_auroc:.3f})"
        + (
            "."
            if q.split_half_cosine is None
            else f"; made from two halves of the prompts it has cosine {q.split_half_cosine:.2f} with itself."
        )
        for d, q in zip(facts.directions, best, strict=True)
    ]


def _shares(facts: Explanation) -> list[tuple[str, Interval]]:
    """(speciality, share of the distance to its teacher that is gone) of each that was learnt, as measured then."""
    return [(label(t.name, NAME), t.removed) for t in (facts.learning.taught if facts.learning is not None else ())]


def _in_words(effect: Effect) -> str:
    return {
        "gain": "a gain",
        "none": "no effect measured, the interval contains zero",
        "loss": "a loss, the effect is below that of random directions",
        "hollow": f"hollow, the likelihood of good answers fell by {number(-effect.likelihood.mean)} nats per token",
    }[word_of(effect)]


def _cost(facts: Explanation) -> Card:
    cost = cost_of(facts)
    if cost is None:
        return Card("What it cost", "?", "not measured", ("What the edit disturbs was not measured.",))
    bound = "the budget is" if cost.budgeted else "answers visibly change above"
    sentences = [
        f"General and protect prompts moved by {damage_text(cost)} nats per token on average ({bound} {cost.budget:g}); the 95th "
        f"percentile of their tokens is {cost.p95:.3f}."
    ]
    if facts.evaluation is not None:
        damage = facts.evaluation.damage
        ratio = damage.perplexity_enhanced / damage.perplexity_base
        sentences += [
            f"Repeated 4-grams went from {percent(damage.repetition_base)} to {percent(damage.repetition_enhanced)}, the "
            f"perplexity of neutral prose from {damage.perplexity_base:.2f} to {damage.perplexity_enhanced:.2f} "
            f"({100 * ratio - 100:+.1f} %).",
            _refusals(damage),
        ]
    elif facts.check is not None:
        sentences.append(
            f"Repeated 4-grams went from {percent(facts.check.repetition_base)} to "
            f"{percent(facts.check.repetition_enhanced)}. Perplexity and refusals were not measured."
        )
    return Card("What it cost", f"{cost.kl:.4f}", "nats per token on general prompts", tuple(sentences))


def _refusals(damage: Damage) -> str:
    if not damage.harmful:
        return "No harmful requests were tried."
    return (
        f"Of {damage.harmful} harmful requests the base model declined {damage.refused_base}, the enhanced one "
        f"{damage.refused_enhanced}; {damage.refusals_kept} refusals were kept."
    )


def _verdict(facts: Explanation) -> tuple[bool | None, str]:
    if not _edited(facts):
        return False, "Does not ship: every gain is zero, so nothing is edited."
    effects, cost = effects_of(facts), cost_of(facts)
    against = []
    if cost is not None and not cost.within:
        against.append(f"the damage of {cost.kl:.4f} nats per token is beyond {cost.budget:g}")
    against += [f"on {name}: {_in_words(e)}" for name, e in effects if word_of(e) != "gain"]
    shares = _shares(facts)
    against += [f"{name}: the distance to the teacher did not surely shrink" for name, e in shares if e.low <= 0]
    if against:
        return False, f"Does not ship: {'; '.join(against)}."
    missing = [name for name, seen in (("the effect", effects or shares), ("the damage", cost)) if not seen]
    if missing or cost is None:
        was = "was" if len(missing) == 1 else "were"
        return None, f"Whether it ships cannot be said: {' and '.join(missing)} {was} not measured."
    limit = "the budget" if cost.budgeted else "the bound of visible change"
    within = f"within {limit}" if cost.kl <= cost.budget else f"within {percent(SLACK - 1)} of {limit}"
    if not effects:
        return True, f"Ships: surely nearer to the teacher on held-out prompts, and damage {within}."
    return True, f"Ships: an effect above random on every kind of pairs, no falling likelihood, and damage {within}."


def _caveats(facts: Explanation) -> list[str]:
    caveats = []
    for d in facts.directions:
        name, best = label(d.name, NAME), d.at_chosen
        if not d.found:
            caveats.append(
                f"The direction {name} is not above its null: with shuffled labels a direction separates held-out prompts as well. "
                "It may be noise."
            )
        if best.largest_share > CARRIED:
            caveats.append(
                f"A few coordinates carry the direction {name}: {percent(best.largest_share)} of its squared length is in the four "
                "largest. It may measure the size of activations, not content."
            )
        if d.held_out < FEW:
            caveats.append(f"Small sample: the direction {name} was tried on {d.held_out} held-out prompts only.")
    effects = effects_of(facts)
    for name, e in effects:
        if word_of(e) == "gain" and e.likelihood.mean < 0:
            caveats.append(
                f"On {name} the likelihood of good answers did not rise: {e.likelihood.short} nats per token."
            )
    few = [f"{e.pairs} {name}" for name, e in effects if e.pairs < FEW]
    if few:
        caveats.append(f"Small sample: the effect was measured on {' and '.join(few)}.")
    caveats += _costs_to_know(facts)
    return caveats


def _costs_to_know(facts: Explanation) -> list[str]:
    cost, caveats = cost_of(facts), []
    if cost is not None and cost.prompts is not None and cost.prompts < FEW:
        caveats.append(f"Small sample: the damage was measured on {cost.prompts} prompts.")
    if facts.evaluation is not None:
        damage = facts.evaluation.damage
        if damage.repetition_enhanced > damage.repetition_base + MORE_REPEATED:
            caveats.append("Enhanced answers repeat themselves more than the base model's.")
        if damage.perplexity_enhanced > MORE_PERPLEXED * damage.perplexity_base:
            caveats.append(f"Neutral prose became more than {percent(MORE_PERPLEXED - 1)} more perplexing.")
        lost = damage.refused_base - damage.refusals_kept
        if lost:
            caveats.append(
                f"{lost} refusal{'s' if lost > 1 else ''} of harmful requests {'were' if lost > 1 else 'was'} lost."
            )
    return caveats
