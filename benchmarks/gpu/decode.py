"""Decoding on one GPU against the device's roofline and transformers' `generate`, plain and with CUDA graphs (torch.compile).

python benchmarks/gpu/decode.py [--size 8b] [--runs 5] [--device cpu --small]

`generate` with a static cache compiles the decoding step and records it as a CUDA graph; it is measured on a GPU alone, for the
plain model and under live hooks. Whether that pays, the table says; a step that cannot be compiled is named instead.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from subject import Subject, measure, subject, weight_bytes

ROWS = 8


def generated(model: Any, ids: torch.Tensor, tokens: int, enhancement: Any, cache: str) -> torch.Tensor:
    """`generate` as a script calls it: exactly `tokens` tokens for every row."""
    context = contextlib.nullcontext() if enhancement is None else model.enhanced(enhancement)
    mask = torch.ones_like(ids)
    with context, torch.inference_mode():
        return model.network.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            cache_implementation=cache,
            pad_token_id=0,
        )


def compiled_rows(
    loaded: Subject, steps: dict[str, Callable[[], object]]
) -> tuple[list[measure.Measurement], list[str]]:
    """The steps that compile, and what became of the others."""
    if loaded.device.type != "cuda":
        return [], [f"Not measured on a {loaded.device.type}: {', '.join(steps)}."]
    rows, notes = [], []
    for name, call in steps.items():
        torch._dynamo.reset()
        try:
            rows.append(loaded.row(name, call))
        except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:
            notes.append(f"{name}: not possible here ({type(error).__name__}: {str(error).splitlines()[0]}).")
    return rows, notes


def run(loaded: Subject) -> dict[str, Any]:
    """The table's numbers."""
    from burnish import find_direction, load_domain, load_general
    from burnish.model.decoding import Candidate, DecodeRequest, decode

    model, tokens = loaded.model, 8 if loaded.small else 128
    general = load_general("en")
    sets = load_domain("creative-writing").enhance.spread(12), general.prompts.spread(12)
    direction = find_direction(model, enhance=sets[0], normal=sets[1])
    plans = [direction.enhancement(0.02 * (i + 1)) for i in range(ROWS)]
    prompt = model.tokens(general.held_out.prompts[0])
    model.stop_tokens = frozenset()  # every answer has the same length
    one, all_rows = (torch.tensor([prompt] * n, device=loaded.device) for n in (1, ROWS))
    requests = [DecodeRequest(prompt, Candidate(str(i), plan), tokens) for i, plan in enumerate(plans)]

    def plain(ids: torch.Tensor, plan: Any = None, cache: str = "dynamic") -> Callable[[], object]:
        return lambda: generated(model, ids, tokens, plan, cache)

    rows = [
        loaded.row(name, call)
        for name, call in {
            "burnish decoder, 1 request": lambda: decode(model, requests[:1], rows=1),
            f"burnish decoder, {ROWS} requests with {ROWS} enhancements": lambda: decode(model, requests, rows=ROWS),
            "generate, 1 row": plain(one),
            "generate, 1 row, live hooks": plain(one, plans[0]),
            f"generate, {ROWS} rows": plain(all_rows),
        }.items()
    ]
    compiled, notes = compiled_rows(
        loaded,
        {
            "generate, 1 row, static cache, compiled": plain(one, cache="static"),
            "generate, 1 row, live hooks, static cache, compiled": plain(one, plans[0], "static"),
            f"generate, {ROWS} rows, static cache, compiled": plain(all_rows, cache="static"),
        },
    )
    rows += compiled
    least = loaded.roof.seconds(0, weight_bytes(model) * tokens)
    notes.append(
        f"Roofline: every step reads {weight_bytes(model) / 1e9:.3g} GB of weights once for all its rows (keys and values, a small part at these "
        "lengths, are left out), so that it is the same for 1 and for 8 rows."
    )
    what = f"{tokens} tokens a row after a prompt of {len(prompt)}"
    return loaded.report("decode", what, rows, {row.name: least for row in rows}, notes)


if __name__ == "__main__":
    run(subject(__doc__))
