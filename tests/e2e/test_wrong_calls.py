"""Calls that make no sense are refused in words, before a weight is loaded, and leave nothing behind."""

import json
import shlex
from pathlib import Path

import pytest

from burnish.model.model import outline
from conftest import Call, Folders, random_enhancement

ENHANCE = "enhance MODEL --enhance SPECIAL --normal PLAIN -o OUT"
LEARN = "enhance MODEL -o OUT"
TRAIN = "train MODEL -o OUT"
EVALUATE = "evaluate MODEL"
CASES = [
    (f"{ENHANCE} --layer-idx 40", "Layer 40 does not exist: this model has layers 0-2. Pass --layer-idx 0..2"),
    (f"{ENHANCE} --layers 2..1", "is empty"),
    (f"{ENHANCE} --enhancement-factor -2", "turn the component around"),
    (f"{ENHANCE} --instructions 1", "too few"),
    (f"{ENHANCE} --enhancement-factor much", "much"),
    (f"{ENHANCE} --layer-index 3", "--layer-idx"),
    (f"{LEARN} --enhance SPECIAL --normal /no/such/file --method published", "does not exist"),
    (f"{ENHANCE} --form onnx", "adapter"),
    (f"{ENHANCE} --form gguf", "is not a .gguf file"),
    (f"{ENHANCE} --enhancement-factor 0 --form adapter", "Every gain is zero"),
    (f"{LEARN} --method learned --enhancement-factor 0.5 --domain education", "Pass one of the two"),
    (f"{LEARN} --expert x --domain '0.5 education + 0.5 creative-writing'", "teaches one speciality"),
    (f"{LEARN} --expert missing.txt", "does not exist"),
    (f"{LEARN} --domain education --budget 0", "leaves no room"),
    (f"{LEARN} --domain education --steps 0", "too few"),
    (f"{LEARN} --domain education --method published --steps 9", "belong to learnt directions"),
    (f"{LEARN} --domain poetry", "no domain 'poetry'"),
    (f"{LEARN} --domain '0.5 education -creative'", "spaces"),
    (f"{LEARN} --domain education --references r.jsonl", "a packaged domain has reference answers"),
    ("explain MODEL --with PLAN --domain education --expert x", "belong to prompts of your own"),
    (f"{LEARN} --enhance missing.txt", "does not exist"),
    (f"{LEARN} --domain education --enhancement-factor 0.5 --guidance 2", "belong to learnt directions"),
    (f"{LEARN} --domain education --enhancement-factor 0.5 --budget 0.1", "Pass one of the two"),
    (f"{LEARN} --domain education --method learned --scope per-layer", "directions are chosen too"),
    (f"{LEARN} --domain education --expert x --enhancement-factor 0.5", "say what is learnt"),
    (f"{LEARN} --expert x --normal n.txt", "go with prompts of a speciality"),
    (LEARN, "Pass either --enhance FILE or --domain NAME"),
    ("find MODEL -o OUT", "either --enhance FILE or --domain NAME"),
    ("find MODEL -o OUT --enhance SPECIAL --normal PLAIN --domain education", "either --enhance FILE or --domain NAME"),
    ("tune MODEL -o OUT", "`burnish enhance` learns directions and gains"),
    (TRAIN, "nothing to learn"),
    (f"{TRAIN} --data ROWS --combine keep", "needs an enhancement"),
    (f"{TRAIN} --data ROWS --held-out 1.5", "--held-out"),
    (f"{TRAIN} --data ROWS --budget 0", "--budget"),
    (EVALUATE, "nothing to evaluate"),
    (f"{EVALUATE} --adapter FOLDER", "--compare --domain NAME"),
    (f"{EVALUATE} --with PLAN --domain education --adapter FOLDER", "--compare --domain NAME"),
    (f"{EVALUATE} --compare", "--domain NAME"),
    (f"{EVALUATE} --with PLAN", "--domain NAME, --pairs FILE"),
    (f"{EVALUATE} --with PLAN --domain poetry", "creative-writing"),
    (f"{EVALUATE} --with PLAN --domain education --judge-url http://127.0.0.1:1/v1", "--judge-model"),
    (f"{EVALUATE} --compare --domain education --judge-url http://127.0.0.1:1/v1 --judge-model m", "--with FILE"),
    (f"{EVALUATE} --with PLAN --domain education --budget 0", "--budget"),
    (f"{EVALUATE} --with PLAN --domain education --samples 1", "--samples"),
    ("explain MODEL -o OUT", "--with"),
    ("explain MODEL --with PLAN --publish", "--publish writes into an output folder"),
    ("explain MODEL --with PLAN --references ROWS", "Pass --enhance FILE with them"),
    (f"{LEARN} --domain education --form enhancement --page", "--page writes into an output folder"),
    ("audit MODEL MODEL", "same folder"),
    ("chat MODEL --compare --prompt x", "needs an enhancement"),
    ("chat MODEL --strength 0.5 --prompt x", "none is given"),
    ("apply MODEL PLAN -o OUT --layers 1", "an enhancement, whose layers are chosen"),
    ("apply MODEL PLAN -o OUT --strength 1e39", "beyond every use"),
    (f"{LEARN} --expert 'my expert.txt'", "does not exist or is no file"),
]


@pytest.fixture
def places(tiny_folder: Folders, tmp_path: Path) -> dict[str, str]:
    """What stands for words of the calls."""
    files = {name: tmp_path / name.lower() for name in ("SPECIAL", "PLAIN", "ROWS", "PLAN", "OUT")}
    for name, end in (("SPECIAL", " ?!"), ("PLAIN", " ...")):
        files[name] = tmp_path / f"{name.lower()}.txt"
        files[name].write_text("\n".join(f"{word} {n}{end}" for n in range(20) for word in ("sea", "hill")))
    files["ROWS"] = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"What is {w}?", "completion": f"{w} is {w}."} for w in "abcdefghijkl"]
    files["ROWS"].write_text("\n".join(map(json.dumps, rows)))
    random_enhancement(outline(tiny_folder("llama")), 0.2).save(files["PLAN"])
    return {"MODEL": str(tiny_folder("llama")), **{name: str(path) for name, path in files.items()}}


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(("line", "words"), CASES, ids=[line for line, _ in CASES])
def test_a_call_that_makes_no_sense_is_refused(line: str, words: str, places: dict[str, str], call: Call) -> None:
    code, _, err = call(*(places.get(word, word) for word in shlex.split(line)))
    assert code in (2, 3)
    assert words in " ".join(err.replace("│", " ").split())
    assert not Path(places["OUT"]).exists()
