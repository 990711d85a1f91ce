"""Evaluating 16 factors in one pass on one GPU against the device's roofline and 16 plain evaluations.

python benchmarks/gpu/evaluation.py [--size 8b] [--runs 5] [--device cpu --small]
"""

from typing import Any

import torch
from subject import Subject, finding_methods, scoring, subject, weight_bytes

WINDOW = "50%.."


def least_seconds(loaded: Subject, items: list[object], kinds: int, first: int) -> float:
    """Blocks below the first edited one run once, the others and the unembedding once a candidate."""
    model = loaded.model
    sequences = [i.prompt + i.answer for i in items]  # type: ignore[attr-defined]
    tokens = finding_methods.distinct_tokens(sequences)
    answers = sum(len(i.answer) for i in items)  # type: ignore[attr-defined]
    block = sum(w.numel() for w in finding_methods.block_weights(model)) / model.anatomy.layers
    head = model.network.get_output_embeddings().weight.numel()
    above = model.anatomy.layers - first
    flops = 2 * tokens * block * (first + kinds * above) + 2 * answers * head * kinds
    return loaded.roof.seconds(flops, weight_bytes(model))


def run(loaded: Subject) -> dict[str, Any]:
    """The table's numbers."""
    from burnish import find_direction, load_domain, load_general
    from burnish.layers import layer_window
    from burnish.model.scoring import Candidate, Item, score

    model = loaded.model
    factors, count, length = (3, 4, 8) if loaded.small else (16, 32, 32)
    general = load_general("en")
    sets = load_domain("creative-writing").enhance.spread(12), general.prompts.spread(12)
    direction = find_direction(model, enhance=sets[0], normal=sets[1])
    prompts = [model.tokens(p) for p in general.held_out.spread(count).prompts]
    # Random tokens for answers: a model with random weights may stop at once.
    generator = torch.Generator().manual_seed(0)
    answers = torch.randint(3, len(model.tokenizer), (count, length), generator=generator).tolist()
    items = [Item(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    plans = [direction.enhancement(0.1 * (i + 1), layers=WINDOW) for i in range(factors)]
    candidates = [Candidate(str(i), plan) for i, plan in enumerate(plans)]
    steps = {
        f"burnish, {factors} factors in one pass": lambda: score(model, items, candidates),
        f"{factors} plain evaluations": lambda: [scoring.plain(model, items, plan) for plan in plans],
    }
    rows = [loaded.row(name, call) for name, call in steps.items()]
    first = layer_window(WINDOW, model.anatomy.layers).start
    least = least_seconds(loaded, items, 1 + factors, first)
    notes = [
        f"Roofline: the base model and {factors} candidates, of which the {first} blocks below the first edited one are run once; the same "
        "for both steps."
    ]
    what = f"{count} prompts with {length} answer tokens, layers {WINDOW}"
    return loaded.report("evaluation", what, rows, dict.fromkeys(steps, least), notes)


if __name__ == "__main__":
    run(subject(__doc__))
