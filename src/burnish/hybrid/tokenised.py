"""From rows to tokens, and the order in which they are seen."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from burnish.errors import InputError, PromptFileError
from burnish.hybrid.rows import TrainingRows
from burnish.model.model import Model
from burnish.prompts import Prompt


@dataclass(frozen=True)
class TrainingItem:
    """One row as tokens."""

    prompt: list[int]
    answer: list[int]
    rejected: list[int] | None = None

    @property
    def length(self) -> int:
        """Tokens of the longest sequence made of it."""
        return len(self.prompt) + max(len(self.answer), len(self.rejected or ()))


def training_items(model: Model, rows: TrainingRows) -> list[TrainingItem]:
    """The rows as tokens; the model's weights are not needed (`burnish.model.model.outline`).

    Raises PromptFileError for rows that the chat template changes or that do not fit into the model's context.
    """
    context = model.context
    items = []
    for number, prompt in zip(rows.numbers, rows.prompts, strict=True):
        where = f"{rows.name}, row {number}"
        rejected = None if prompt.rejected is None else answer_tokens(model, prompt, prompt.rejected, where)
        item = TrainingItem(model.tokens(prompt), answer_tokens(model, prompt, prompt.answer or "", where), rejected)
        if context is not None and item.length > context:
            raise PromptFileError(
                f"{where} is {item.length} tokens long, and the model reads {context}: its end would never be learnt. Shorten the row, or "
                "split it."
            )
        items.append(item)
    return items


def answer_tokens(model: Model, prompt: Prompt, answer: str, where: str) -> list[int]:
    """An answer as the template closes it, with the end-of-text token where the template writes none.

    Raises PromptFileError when the template does not write the answer behind the prompt that the model will be asked with.
    """
    text = answer
    if model.chat_template:
        asked, answered = model.render(prompt), model.render(prompt, answer=answer)
        text = answered[len(asked) :].rstrip("\n")
        if not answered.startswith(asked) or answer.strip() not in text:
            raise PromptFileError(
                f"{where}: the model's chat template does not put this answer behind the prompt ({asked[-40:]!r} is followed by "
                f"{text[:40]!r}), so that nothing of it would be learnt. Remove what the template cuts out, or pass a model with another template."
            )
    tokens = model.encode(text)
    end = model.tokenizer.eos_token_id
    closed = text.strip().endswith(answer.strip())  # nothing of the template's own stands behind the answer
    if end is not None and closed and tokens[-1:] != [end]:
        tokens.append(end)
    return tokens


def order(style: int, knowledge: int, share: float, total: int, seed: int) -> list[tuple[bool, int]]:
    """`total` rows as (is knowledge, index): the two kinds are spread evenly by `share`, the share of knowledge rows, and each kind is
    gone through in shuffled rounds, so that every row is seen equally often. Depends on its arguments only.

    Raises InputError when a share is asked of rows that are not there.
    """
    if (share > 0 and not knowledge) or (share < 1 and not style):
        raise InputError(
            f"A share of {share:g} knowledge rows needs rows of both kinds. Pass --data and --knowledge, or leave the share out."
        )
    pools = {kind: _rounds(count, seed + kind) for kind, count in ((False, style), (True, knowledge)) if count}
    schedule = []
    for position in range(total):
        kind = int((position + 1) * share) > int(position * share)
        schedule.append((kind, next(pools[kind])))
    return schedule


def _rounds(count: int, seed: int) -> Iterator[int]:
    """Every index once, shuffled, again and again."""
    generator = random.Random(seed)
    while True:
        indices = list(range(count))
        generator.shuffle(indices)
        yield from indices


def tokens_in(items: Sequence[TrainingItem]) -> int:
    """Tokens that a pass over the items reads."""
    return sum(len(i.prompt) * (2 if i.rejected else 1) + len(i.answer) + len(i.rejected or ()) for i in items)
