"""Finding a direction on one GPU against the device's roofline and a loop over transformers.

python benchmarks/gpu/finding.py [--size 8b] [--runs 5] [--device cpu --small]
"""

from typing import Any

from subject import Subject, finding_methods, subject, weight_bytes


def prompts_of(loaded: Subject) -> tuple[Any, Any]:
    """(enhance, normal) sets: 95 + 95 prompts, with --small 12 + 12."""
    from burnish import load_domain, load_general

    sets = load_domain("creative-writing").enhance, load_general("en").prompts
    return tuple(s.spread(12) for s in sets) if loaded.small else sets


def run(loaded: Subject) -> dict[str, Any]:
    """The table's numbers."""
    from burnish import find_direction

    model, (enhance, normal) = loaded.model, prompts_of(loaded)
    model.tokenizer.padding_side = "left"
    rendered = {name: [model.render(p) for p in s.prompts] for name, s in (("enhance", enhance), ("normal", normal))}
    steps = {
        "burnish, the directions alone": lambda: finding_methods.directions_alone(model, enhance, normal),
        "burnish find (held-out report and null too)": lambda: find_direction(model, enhance=enhance, normal=normal),
        "transformers loop, output_hidden_states": lambda: finding_methods.plain_loop(
            model.network, model.tokenizer, rendered
        ),
    }
    rows = [loaded.row(name, call) for name, call in steps.items()]
    tokens = finding_methods.distinct_tokens(model.tokens(p) for p in enhance.prompts + normal.prompts)
    parameters = sum(w.numel() for w in finding_methods.block_weights(model))
    least = loaded.roof.seconds(2 * tokens * parameters, weight_bytes(model))
    notes = [
        f"Roofline: {2 * tokens * parameters / 1e12:.3g} TFLOP for the {tokens} distinct tokens through all blocks (attention itself, "
        "a few percent, is left out), the same for every step."
    ]
    what = f"{len(enhance)} + {len(normal)} prompts"
    return loaded.report("finding", what, rows, dict.fromkeys(steps, least), notes)


if __name__ == "__main__":
    run(subject(__doc__))
