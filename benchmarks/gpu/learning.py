"""A step of learning on one GPU against the device's roofline: the teacher's targets, and the gradient of a step's answers.

python benchmarks/gpu/learning.py [--size 8b] [--runs 5] [--device cpu --small]
"""

from typing import Any

import torch
from subject import Subject, finding_methods, subject, weight_bytes


def run(loaded: Subject) -> dict[str, Any]:
    """The table's numbers."""
    from burnish import LearnOptions, load_domain, load_general
    from burnish.maths.symmetric import signs
    from burnish.model.imitation import Lesson, SymmetricEdit, imitate, log_probabilities
    from burnish.model.scoring import Item

    model, options = loaded.model, LearnOptions()
    domain = load_domain("creative-writing")
    count, length = (4, 8) if loaded.small else (options.rows + options.everyday_rows, options.tokens)
    questions = [
        *domain.asked.spread(count - count // 2).prompts,
        *load_general("en").prompts.spread(count // 2).prompts,
    ]
    # Random tokens for answers: a model with random weights may stop at once.
    generator = torch.Generator().manual_seed(0)
    answers = torch.randint(3, len(model.tokenizer), (count, length), generator=generator).tolist()
    pairs = list(zip(questions, answers, strict=True))
    taught = [Item(model.tokens(prompt, domain.expert_system_prompt), answer) for prompt, answer in pairs]
    items = [Item(model.tokens(prompt), answer) for prompt, answer in pairs]
    lessons = [Lesson(*pair) for pair in zip(items, log_probabilities(model, taught), strict=True)]
    shape = model.anatomy.layers, options.directions, model.anatomy.hidden_size
    rows = (torch.randn(shape, generator=generator) * 0.01).to(loaded.device).requires_grad_()
    edit = SymmetricEdit(rows, signs(options.directions).to(loaded.device))
    steps = {
        "targets of the teacher": lambda: log_probabilities(model, taught),
        "gradient of a step": lambda: imitate(model, edit, lessons, [1 / count] * count),
    }
    measured = [loaded.row(name, call) for name, call in steps.items()]
    block = sum(w.numel() for w in finding_methods.block_weights(model))
    head = model.network.get_output_embeddings().weight.numel() * count * length
    tokens = [finding_methods.distinct_tokens(i.prompt + i.answer for i in part) for part in (taught, items)]
    flops = [2 * (read * block + head) for read in tokens]
    least = [
        loaded.roof.seconds(flops[0], weight_bytes(model)),
        loaded.roof.seconds(2 * flops[1], 2 * weight_bytes(model)),
    ]
    notes = [
        "Roofline: the distinct tokens through all blocks, and the answers' through the unembedding; for the gradient as much again on the way "
        "back, where weights have no gradient of their own."
    ]
    what = f"{count} answers of {length} tokens, {options.directions} directions a layer"
    return loaded.report("learning", what, measured, dict(zip(steps, least, strict=True)), notes)


if __name__ == "__main__":
    run(subject(__doc__))
