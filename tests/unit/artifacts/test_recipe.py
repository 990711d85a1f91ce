"""What a recipe says to others."""

import yaml

from burnish.artifacts.recipe import public_recipe, recipe_text

TABLE = {
    "enhance": {
        "model": "/home/me/models/base",
        "enhance": "/home/me/secret/stories.txt",
        "references": ["~/answers.jsonl", "good.jsonl"],
        "with": "0.6 /home/me/a.safetensors - 0.4 b.safetensors",
        "judge-url": "http://judge.intranet/v1",
        "layers": "60%..",
        "budget": 0.02,
    }
}


def test_nothing_of_this_machine_is_published() -> None:
    public = public_recipe(recipe_text(TABLE), {"/home/me/models/base"}, "owner/base")
    assert "home" not in public
    assert "intranet" not in public
    assert yaml.safe_load(public)["enhance"] == {
        "model": "owner/base",
        "enhance": "stories.txt",
        "references": ["answers.jsonl", "good.jsonl"],
        "with": "0.6 a.safetensors - 0.4 b.safetensors",
        "layers": "60%..",
        "budget": 0.02,
    }


def test_a_recipe_with_nothing_of_this_machine_keeps_every_byte() -> None:
    recipe = recipe_text({"apply": {"model": "owner/base", "plan-file": "plan.safetensors", "layers": "60%.."}})
    assert public_recipe(recipe, {"/elsewhere"}, "owner/base") == recipe
