"""What makes a contrast measure something other than the speciality: duplicates, length, form, language."""

import re
from collections.abc import Sequence

from burnish.prompts.reading import PromptSet

FEW = 32  # prompts in a set below which a mean is shaky
LENGTH_RATIO = 1.35  # of mean lengths
FORM_GAP = 0.2  # difference in the share of questions
LANGUAGE_GAP = 0.2  # difference in the share of Hangul prompts
NEAR = 0.8  # Jaccard similarity of word sets

_WORD = re.compile(r"[\w']+")
_HANGUL = re.compile(r"[\uac00-\ud7a3]")


def lint(enhance: PromptSet, normal: PromptSet | None = None) -> list[str]:
    """Findings in words, most serious first; an empty list means none."""
    found: list[str] = []
    for prompts in (enhance, *([normal] if normal else [])):
        found += _within(prompts)
    if normal is None:
        return found
    shared = {t.casefold() for t in enhance.texts} & {t.casefold() for t in normal.texts}
    if shared and any(p.answer is None for p in enhance.prompts):
        found.insert(0, f"{len(shared)} prompts are in both sets, for example '{sorted(shared)[0]}': remove them.")
    longer, shorter = sorted((mean_length(enhance), mean_length(normal)), reverse=True)
    if longer > LENGTH_RATIO * shorter:
        found.append(
            f"mean lengths differ ({mean_length(enhance):.1f} and {mean_length(normal):.1f} words): the direction may measure length."
        )
    if abs(question_share(enhance) - question_share(normal)) > FORM_GAP:
        found.append(
            f"the shares of questions differ ({question_share(enhance):.0%} and {question_share(normal):.0%}): "
            "the direction may measure form. Match the mix of questions and requests."
        )
    if abs(hangul_share(enhance) - hangul_share(normal)) > LANGUAGE_GAP:
        found.append("the languages differ: the direction may measure language. Use the same language in both sets.")
    return found


def _within(prompts: PromptSet) -> list[str]:
    found = []
    if len(prompts) < FEW:
        found.append(f"'{prompts.name}' has {len(prompts)} prompts: few for a steady mean; {FEW} or more are better.")
    pairs = near_duplicates(prompts.texts)
    if pairs:
        first, second = pairs[0]
        found.append(f"'{prompts.name}' has {len(pairs)} near-duplicates, for example '{first}' and '{second}'.")
    return found


def near_duplicates(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs whose sets of words overlap by a Jaccard similarity of at least 0.8."""
    bags = [frozenset(_WORD.findall(text.casefold())) for text in texts]
    return [
        (texts[i], texts[j])
        for i in range(len(texts))
        for j in range(i)
        if bags[i] and len(bags[i] & bags[j]) >= NEAR * len(bags[i] | bags[j])
    ]


def mean_length(prompts: PromptSet) -> float:
    """Words a prompt."""
    return sum(len(text.split()) for text in prompts.texts) / len(prompts)


def question_share(prompts: PromptSet) -> float:
    return sum(text.rstrip().endswith(("?", "？")) for text in prompts.texts) / len(prompts)


def hangul_share(prompts: PromptSet) -> float:
    return sum(bool(_HANGUL.search(text)) for text in prompts.texts) / len(prompts)
