"""Learnt directions on every surface that takes an enhancement: learnt once, then used as a stranger would."""

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file

from burnish.artifacts.direction import Enhancement
from burnish.errors import InputError
from burnish.learning.learned_enhancement import learned_enhancement, with_reports
from burnish.model.model import load
from burnish.options import EvaluateOptions, ModelOptions
from burnish.server.directions import read_enhancements
from conftest import Call, Folders, random_enhancement
from learning_example import SMALL, WORDS, prompts, run, subject
from serving_example import MESSAGES, running

FAST = ("--dtype", "float32")
QUICK = "--steps 2 --batch 4 --rank 2 --learning-rate 0.01 --check-prompts 0"


@pytest.fixture(scope="module")
def plan(tiny_folder: Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four directions a layer."""
    model = load(tiny_folder("llama"), ModelOptions(dtype="float32"))
    options = replace(SMALL, directions=4, steps=4, learning_rate=4.0)
    learnt = learned_enhancement(model, run(model, options=vars(options)).edit, [subject()], options)
    enhancement = with_reports(model, learnt, subject().held_out, prompts(WORDS[:4]))
    assert enhancement.rank == 4
    assert float(enhancement.gains.min()) < 0 < float(enhancement.gains.max())
    return enhancement.save(tmp_path_factory.mktemp("learnt") / "learnt.safetensors")


@pytest.fixture
def out(tiny_folder: Folders, plan: Path, call: Call, tmp_path: Path) -> Path:
    """A model with the directions in its weights."""
    assert call("apply", tiny_folder("llama"), plan, "-o", tmp_path / "out")[0] == 0
    return tmp_path / "out"


def answer(model: Path, call: Call, *arguments: object) -> str:
    code, rows, err = call("chat", model, "--prompt", "Tell the way", "--tokens", 12, "--json", *FAST, *arguments)
    assert code == 0, err
    return str(next(text for kind, text in rows[0].items() if kind != "prompt"))


def of_another_model(enhancement: Enhancement) -> Enhancement:
    """The same directions, made on other weights."""
    directions = (replace(d, provenance=replace(d.provenance, fingerprint="0" * 64)) for d in enhancement.directions)
    return replace(enhancement, directions=tuple(directions))


def test_it_is_taken_out_of_the_weights_again(
    tiny_folder: Folders, out: Path, plan: Path, call: Call, tmp_path: Path
) -> None:
    code, _, err = call("apply", out, out, "--undo", "-o", tmp_path / "back")
    assert code == 0, err
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_folder("llama"), tmp_path / "back"))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-4, atol=1e-6)
    for model, enhancement, more in ((out, plan, ("--strength", 0.5)), (tiny_folder("llama"), plan, ())):
        code, _, err = call("apply", model, enhancement, *more, "--undo", "-o", tmp_path / "other")
        assert (code, "was not written with this" in err) == (2, True)


def test_verify_and_audit_recover_every_gain(tiny_folder: Folders, out: Path, plan: Path, call: Call) -> None:
    code, verified, err = call("verify", tiny_folder("llama"), out, "--json")
    assert (code, verified["clean"]) == (0, True), err
    asked = Enhancement.load(plan).gains
    for layer in verified["edited"]:
        assert sorted(layer["gains"]) == pytest.approx(sorted(asked[layer["layer"]].tolist()), abs=1e-3)
    code, text, err = call("audit", tiny_folder("llama"), out)
    assert code == 0, err
    assert "4 directions in 3 layers" in text and "own record, 4: verse" in text


def test_a_chat_has_it_in_the_weights_or_beside_them(tiny_folder: Folders, out: Path, plan: Path, call: Call) -> None:
    model = tiny_folder("llama")
    assert answer(model, call, "--with", out) == answer(model, call, "--with", plan) == answer(out, call)


def test_the_page_tells_of_every_direction_what_it_writes_and_when_it_acts(
    tiny_folder: Folders, plan: Path, call: Call, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    arguments = ("--with", plan, "-o", page, "--answers", 1, "--tokens", 2, "--doses", 0, "--json")
    code, facts, err = call("explain", tiny_folder("llama"), *arguments, *FAST)
    assert code == 0, err
    gains = Enhancement.load(plan).gains
    acts = facts["acting"]["directions"]
    assert len(acts) == int(gains.count_nonzero())
    for each in acts:
        assert each["gain"] == pytest.approx(float(gains[each["layer"], each["number"] - 1]))
        assert len(each["promoted"]) == len(each["suppressed"]) == 10
        assert each["strongest"][0][1] >= each["strongest"][-1][1] >= each["weakest"][-1][1] >= each["weakest"][0][1]
    text = page.read_text()
    assert "<script" not in text and "when it acts" in text
    assert text.count(": gain ") == len(acts)


@pytest.mark.parametrize("combine", ["keep", pytest.param("protect", marks=pytest.mark.full)])
def test_a_lora_is_trained_beside_it(
    combine: str, tiny_folder: Folders, plan: Path, call: Call, tmp_path: Path
) -> None:
    rows = [{"prompt": f"What is {w}?", "completion": f"{w} is {w}."} for w in "abcdefghijkl"]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = ("train", tiny_folder("llama"), "--data", tmp_path / "rows.jsonl", "--with", plan, QUICK)
    folder = tmp_path / combine
    code, trained, err = call(*given, "--combine", combine, "--budget", 5, "-o", folder, "--json")
    assert (code, trained["combine"]) == (0, combine), err
    code, _, err = call(
        "apply", tiny_folder("llama"), folder, "--strength", 0.5, "--form", "model", "-o", tmp_path / "m"
    )
    assert code == 0, err
    assert call("verify", tiny_folder("llama"), tmp_path / "m", "--json")[1]["clean"]


def test_it_is_evaluated(tiny_folder: Folders, plan: Path, call: Call, tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {w}", "chosen": f"Yes, {w}.", "rejected": f"No, {w}."} for w in "abcdefgh"]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    small = "--prompts 4 --tokens 4 --answer-tokens 4 --samples 2 --sample-tokens 4 --random-directions 4"
    arguments = ("--with", plan, "--pairs", tmp_path / "pairs.jsonl", small, *FAST)
    code, result, err = call("evaluate", tiny_folder("llama"), *arguments, "--json")
    assert code == 0, err
    assert result["evaluation"]["damage"]["kl"]["mean"] > 0


@pytest.mark.enable_socket
def test_a_request_mixes_it_with_other_directions(tiny_folder: Folders, plan: Path, tmp_path: Path) -> None:
    def loaded(model: object) -> dict[str, Enhancement]:
        return read_enhancements([f"verse={plan}"])

    with (
        running(tiny_folder("llama"), tmp_path, loaded=loaded) as served,
        httpx.Client(base_url=served.url, timeout=30) as http,
    ):

        def reply(name: str) -> str:
            asked = {"model": name, "messages": MESSAGES, "temperature": 0, "max_tokens": 8}
            got = http.post("/v1/chat/completions", json=asked)
            assert got.status_code == 200, got.text
            return str(got.json()["choices"][0]["message"]["content"])

        enhancement = Enhancement.load(plan)
        for weight in (0.5, 2):  # a gain that would turn its component around stops where it is gone
            expected = served.greedy(MESSAGES[0]["content"], 8, enhancement.scaled(weight))
            assert reply(f"base+{weight} verse") == expected
        reply("base+0.6 verse - 0.3 education")
        row = next(r for r in http.get("/api/directions").json()["directions"] if r["name"] == "verse")
        assert row["kind"] == "enhancement" and "rank 4" in row["description"]


def test_a_profile_is_written_on_top_of_it(
    tiny_folder: Folders, plan: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("burnish.catalogue.INSTRUCTIONS", 8)
    monkeypatch.setattr("burnish.personal.features.EVERYDAY", EvaluateOptions(prompts=10, tokens=8))
    monkeypatch.setattr("burnish.personal.enhancing.MEASURED", EvaluateOptions(prompts=6, tokens=8))
    call("profile", "new", "mine")
    call("profile", "learn", "mine", "--set", "education=0.5")
    where = ("profile", "export", "mine", tiny_folder("llama"), "--form", "enhancement")
    code, written, err = call(*where, "--with", plan, "-o", tmp_path / "both.safetensors", "--json", *FAST)
    assert code == 0, err
    both = Enhancement.load(tmp_path / "both.safetensors")
    assert both.rank == 5
    assert torch.equal(both.gains[:, :4], Enhancement.load(plan).gains)
    assert written["check"]["kl_mean"] > 0


def test_a_mix_of_files_is_taken_wherever_a_file_is_and_says_what_it_disturbs(
    tiny_folder: Folders, plan: Path, call: Call, tmp_path: Path
) -> None:
    model = tiny_folder("llama")
    other = random_enhancement(load(model, ModelOptions(dtype="float32")), 0.3).save(tmp_path / "other.safetensors")
    mix = f"0.6 {plan} - 0.4 {other}"
    out = tmp_path / "out"
    code, written, err = call("apply", model, mix, "--strength", 0.5, "-o", out, "--json", *FAST)
    assert code == 0, err
    assert written["check"]["kl_mean"] > 0
    assert f"moved by {written['check']['kl_mean']:.4f} nats" in (out / "README.md").read_text()
    both = Enhancement.load(out / "burnish" / "enhancement.safetensors")
    assert both.rank == 5
    torch.testing.assert_close(both.gains[:, :4], 0.3 * Enhancement.load(plan).gains)
    torch.testing.assert_close(both.gains[:, 4:], -0.2 * 0.3 * torch.ones(3, 1))
    assert answer(model, call, "--with", mix, "--strength", 0.5) == answer(out, call)
    assert call("verify", model, out)[0] == 0
    assert call("apply", model, mix, "--dry-run", "-o", tmp_path / "plan.safetensors", "--form", "enhancement")[0] == 0
    assert read_enhancements([f"both={mix}"])["both"].rank == 5


def test_a_mix_that_cannot_be_added_is_refused_before_weights_are_loaded(
    tiny_folder: Folders, plan: Path, call: Call, tmp_path: Path, no_weights: None
) -> None:
    foreign = of_another_model(Enhancement.load(plan)).save(tmp_path / "foreign.safetensors")
    for mix, code, why in (
        (f"0.6 {plan} + 0.4 {foreign}", 3, "cannot be added"),
        (f"0.6 {plan} + 0.4 {plan}", 2, "twice"),
        (f"0.6 {plan} + 0.4 {tmp_path / 'none.safetensors'}", 2, "none.safetensors cannot be read"),
        (f"0.6 {plan} 0.4 {foreign}", 2, "there is no + or -"),
        (f"0 {plan} + {foreign}", 2, "finite number other than 0"),
    ):
        for command in (("apply", tiny_folder("llama"), mix, "-o", tmp_path / "out"), ("chat", "any", "--with", mix)):
            got, _, err = call(*command)
            assert (got, why in err) == (code, True), (mix, err)
    with pytest.raises(InputError, match="needs a name"):
        read_enhancements([f"0.6 {plan} + 0.4 {foreign}"])
