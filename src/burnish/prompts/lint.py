"""What makes a contrast measure something other than the speciality: duplicates, length, form, language."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from heapq import merge
from math import ceil, floor

from burnish.languages import languages
from burnish.prompts.prompt_files import PromptSet

FEW = 32  # prompts in a set below which a mean is shaky
LENGTH_RATIO = 1.35  # of mean lengths
FORM_GAP = 0.2  # difference in the share of questions
LANGUAGE_GAP = 0.2  # difference in the share of prompts in a script
NEAR = 0.8  # Jaccard similarity of word sets
NEAR_SHARE = NEAR / (1 + NEAR)  # of the sum of two near sets' sizes, which they share at least

_WORD = re.compile(r"[\w']+")


def lint(enhance: PromptSet, normal: PromptSet | None = None) -> list[str]:
    """Findings in words, most serious first; an empty list means none."""
    warnings: list[str] = []
    for prompts in (enhance, *([normal] if normal else [])):
        warnings += _within(prompts)
    if normal is None:
        return warnings
    shared = {t.casefold() for t in enhance.texts} & {t.casefold() for t in normal.texts}
    if shared and any(p.answer is None for p in enhance.prompts):
        warnings.insert(0, f"{len(shared)} prompts are in both sets, for example '{sorted(shared)[0]}': remove them.")
    longer, shorter = sorted((mean_length(enhance), mean_length(normal)), reverse=True)
    if longer > LENGTH_RATIO * shorter:
        warnings.append(
            f"mean lengths differ ({mean_length(enhance):.1f} and {mean_length(normal):.1f} words): the direction may measure length."
        )
    if abs(question_share(enhance) - question_share(normal)) > FORM_GAP:
        warnings.append(
            f"the shares of questions differ ({question_share(enhance):.0%} and {question_share(normal):.0%}): "
            "the direction may measure form. Match the mix of questions and requests."
        )
    if any(abs(one.share(enhance.texts) - one.share(normal.texts)) > LANGUAGE_GAP for one in languages().values()):
        warnings.append("the languages differ: the direction may measure language. Use the same language in both sets.")
    return warnings


def _within(prompts: PromptSet) -> list[str]:
    warnings = []
    if len(prompts) < FEW:
        warnings.append(
            f"'{prompts.name}' has {len(prompts)} prompts: few for a steady mean; {FEW} or more are better."
        )
    pairs = near_duplicates(prompts.texts)
    if pairs:
        first, second = pairs[0]
        warnings.append(f"'{prompts.name}' has {len(pairs)} near-duplicates, for example '{first}' and '{second}'.")
    return warnings


def near_duplicates(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Texts that say what an earlier one says, each with the first such one: their sets of words overlap by a Jaccard similarity of at
    least 0.8.

    Two sets of given sizes that overlap so much share one of their rarest words, so that few are compared: nearly linear in the number of
    texts, also where all share most of their words. Source: Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity search", and
    Xiao et al. 2008, "Efficient similarity joins for near duplicate detection".
    """
    bags = [frozenset(_WORD.findall(text.casefold())) for text in texts]
    counts = Counter(word for bag in bags for word in bag)
    # Of a set of words that was seen: the first text near to it, which may be its own.
    nearest: dict[frozenset[str], int] = {}
    # By size and by each of their rarest words, earlier texts.
    holders: dict[tuple[int, str], list[int]] = defaultdict(list)
    pairs = []
    for i, bag in enumerate(bags):
        if not bag:
            continue
        if bag not in nearest:
            size, rarest = len(bag), sorted(bag, key=lambda word: (counts[word], word))
            earlier = merge(
                *(
                    holders[other, word]
                    for other in range(ceil(NEAR * size), floor(size / NEAR) + 1)
                    for word in rarest[: size - _overlap(size, other) + 1]
                    if (other, word) in holders
                )
            )
            nearest[bag] = next((j for j in earlier if _near(bag, bags[j])), i)
            for word in rarest[: size - ceil(NEAR * size) + 1]:
                holders[size, word].append(i)
        if nearest[bag] != i:
            pairs.append((texts[i], texts[nearest[bag]]))
    return pairs


def _overlap(size: int, other: int) -> int:
    """Words that two near sets of these sizes share at least."""
    return ceil(NEAR_SHARE * (size + other) - 1e-9)


def _near(one: frozenset[str], other: frozenset[str]) -> bool:
    shared = len(one & other)
    return shared >= NEAR * (len(one) + len(other) - shared)


def mean_length(prompts: PromptSet) -> float:
    """Words a prompt."""
    return sum(len(text.split()) for text in prompts.texts) / len(prompts)


def question_share(prompts: PromptSet) -> float:
    return sum(text.rstrip().endswith(("?", "？")) for text in prompts.texts) / len(prompts)
