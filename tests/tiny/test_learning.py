"""Learning directions from a teacher, on tiny models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from burnish.artifacts import cache
from burnish.errors import InputError, ModelError
from burnish.learning import descent as descending
from burnish.learning.descent import Descent, descend
from burnish.learning.learned_enhancement import learned_enhancement
from burnish.learning.learned_tables import learned_summary, learned_table, samples_table
from burnish.learning.learning import Learned, learn
from burnish.learning.subject import Subject, alternating, everyday_sets, expert_subject
from burnish.learning.teacher import Examples, Expert, worth_learning
from burnish.model.imitation import Lesson, SymmetricEdit
from burnish.model.model import Model
from burnish.options import LearnOptions
from burnish.prompts import Prompt, PromptSet
from burnish.prompts.domains import load_domain, load_general
from conftest import Models
from learning_example import SMALL, WORDS, calm, lessons, prompts, run, subject


def test_steps_bring_the_model_nearer_to_its_teacher(tiny_model: Models) -> None:
    losses = run(tiny_model("llama"), options={"steps": 30, "everyday_weight": 0.0, "learning_rate": 2.0}).losses
    assert sum(x.teacher for x in losses[-8:]) < 0.9 * sum(x.teacher for x in losses[:8])


def test_the_same_seed_gives_the_same_bytes(tiny_model: Models) -> None:
    model = tiny_model("llama")
    first, second = (learned_enhancement(model, run(model).edit, [subject()], SMALL).as_bytes() for _ in range(2))
    assert first == second
    other = run(model, options={"seed": 1})
    assert learned_enhancement(model, other.edit, [subject()], SMALL).as_bytes() != first


@pytest.mark.parametrize("killed_at", [3, 5])
def test_a_killed_run_resumes_to_the_same_result(
    killed_at: int, tiny_model: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descending, "SAVE_EVERY", 1)
    model, state = tiny_model("llama"), tmp_path / "state.safetensors"
    asked: list[torch.Tensor] = []

    def student(edit: SymmetricEdit) -> list[Lesson]:
        asked.append(edit.rows.detach().clone())
        return lessons(model, Expert("Sing of the sea"))

    def stop(what: str, done: int, total: int) -> None:
        if done == killed_at:
            raise KeyboardInterrupt

    def start(**how: object) -> Descent:
        return descend(model, lessons(model, Expert("Sing")), calm(model), student, SMALL, **how)  # type: ignore[arg-type]

    uninterrupted = start()
    with pytest.raises(KeyboardInterrupt):
        start(unfinished=state, progress=stop)
    resumed = start(unfinished=state)
    assert resumed.resumed_at == killed_at
    assert torch.equal(resumed.edit.rows, uninterrupted.edit.rows)
    assert resumed.losses == uninterrupted.losses
    assert all(torch.equal(asked[0], rows) for rows in asked)


@pytest.mark.filterwarnings("ignore:The cache")
def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(tiny_model: Models, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    state = tmp_path / "file" / "state.safetensors"
    assert torch.equal(run(tiny_model("llama"), unfinished=state).edit.rows, run(tiny_model("llama")).edit.rows)


def test_layers_outside_the_window_stay_as_they_are(tiny_model: Models) -> None:
    model = tiny_model("llama")
    edit = run(model, options={"layers": "1..1"}).edit
    enhancement = learned_enhancement(model, edit, [subject()], SMALL)
    assert enhancement.edited_layers() == [1]


def test_directions_are_orthonormal_and_no_gain_removes_more_than_all(tiny_model: Models) -> None:
    model = tiny_model("llama")
    options = replace(SMALL, directions=4, learning_rate=20.0)
    enhancement = learned_enhancement(model, run(model, options=vars(options)).edit, [subject()], options)
    for layer in range(model.anatomy.layers):
        torch.testing.assert_close(enhancement.gram(layer), torch.eye(4), atol=1e-5, rtol=0)
    assert float(enhancement.gains.min()) > -1


def learnt(model: Model, *subjects: Subject, options: LearnOptions = SMALL) -> Learned:
    return learn(model, subjects or [subject()], options)


@pytest.mark.usefixtures("own_cache")
def test_the_teachers_prompt_reaches_no_file_and_no_table(tiny_model: Models, tmp_path: Path) -> None:
    result = learnt(tiny_model("llama"), subject(teacher=Expert("Sing of QUIXOTIC matters")))
    text = learned_table(result) + samples_table(result) + str(learned_summary(result))
    data = result.enhancement.save(tmp_path / "plan.safetensors").read_bytes()
    cached = [path for path in cache.cache_root().rglob("*") if path.is_file()]
    assert cached
    assert not any(b"QUIXOTIC" in written for written in (text.encode(), data, *(path.read_bytes() for path in cached)))
    assert result.teachers[0] in text


def test_everything_is_measured_and_told(tiny_model: Models) -> None:
    result = learnt(tiny_model("llama"))
    assert result.damage.prompts > 0 and result.taught[0].prompts > 0
    assert result.check.kl_mean == result.damage.kl.mean
    assert result.refusals.harmful > 0
    assert "Taught by expert prompt" in learned_table(result)
    for direction in result.enhancement.directions:
        assert direction.learned
        assert all(0.5 <= value <= 1 for value in direction.report.auroc)


def test_a_file_of_learnt_directions_is_read_back(tiny_model: Models, tmp_path: Path) -> None:
    from burnish.artifacts.direction import Enhancement

    enhancement = learnt(tiny_model("llama")).enhancement
    again = Enhancement.load(enhancement.save(tmp_path / "plan.safetensors"))
    assert torch.equal(again.vectors, enhancement.vectors) and torch.equal(again.gains, enhancement.gains)
    assert again.directions[0].learned


def test_without_an_effect_the_model_is_left_alone(tiny_model: Models) -> None:
    result = learnt(tiny_model("llama"), options=replace(SMALL, learning_rate=1e-9))
    assert result.abstained and result.enhancement.edited_layers() == []
    assert result.reason in learned_table(result)


def test_several_specialities_share_one_budget(tiny_model: Models) -> None:
    second = subject(name="prose", teacher=Expert("Write of the door"), weight=0.5)
    result = learnt(tiny_model("llama"), subject(), second)
    assert [t.name for t in result.taught] == ["verse", "prose"]
    assert len(result.teachers) == 2


def test_a_speciality_of_negative_weight_is_toned_down_beside_another(tiny_model: Models) -> None:
    result = learnt(tiny_model("llama"), subject(), subject(name="less", weight=-1.0))
    assert len(result.taught) == 2


@pytest.mark.parametrize(
    ("subjects", "message"),
    [
        ([], "no speciality"),
        ([subject(weight=-1.0)], "Every weight is negative"),
        ([subject(), subject(language="ko")], "two languages"),
    ],
)
def test_what_cannot_be_learnt_is_refused(subjects: list[Subject], message: str, tiny_model: Models) -> None:
    with pytest.raises(InputError, match=message):
        learn(tiny_model("llama"), subjects, SMALL)


def test_answers_that_loop_refuse_or_end_at_once_teach_nothing(tiny_model: Models) -> None:
    model = tiny_model("llama")

    def tokens(text: str) -> list[int]:
        return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    assert not worth_learning(model, [5])
    assert not worth_learning(model, [5, 6, 7, 8] * 8)
    assert not worth_learning(model, tokens("I am sorry, but I cannot help"))
    assert worth_learning(model, tokens("the sea is wide and the way is long"))


def test_a_teacher_without_usable_answers_is_an_error(tiny_model: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("burnish.learning.teacher.worth_learning", lambda model, answer: False)
    with pytest.raises(ModelError, match="worth learning from"):
        learnt(tiny_model("llama"))


def test_examples_never_hold_the_question_that_is_answered() -> None:
    rows = PromptSet("rows", tuple(Prompt.of(t, f"answer to {t}") for t in WORDS[:5]))
    for row in rows.prompts:
        context = Examples(rows).prompt(Prompt(row.messages))
        assert len(context.messages) == 7
        assert row.text not in [text for _, text in context.messages[:-1]]
        assert context.text == row.text


@pytest.mark.parametrize("changes", [{}, {"everywhere": True}, {"normal": prompts([f"{w}?" for w in WORDS])}])
def test_no_everyday_prompt_is_in_two_sets(changes: dict[str, Any]) -> None:
    sets = everyday_sets([subject(**changes)], LearnOptions())
    held, measured, reported = (set(s.texts) for s in (sets.held, sets.measured, sets.reported))
    assert held and measured and reported
    assert not held & measured and not held & reported and not measured & reported
    if changes:
        assert not (held | measured | reported) & set(load_general().held_out.texts)


def test_several_sets_of_prompts_take_turns_in_equal_parts() -> None:
    one, two, three = (prompts([f"{name} {i}" for i in range(n)]) for name, n in (("a", 9), ("b", 3), ("c", 4)))
    assert [text[0] for text in alternating(one, two, three).texts] == ["a", "b", "c"] * 3
    assert alternating(one, prompts([])).texts == one.texts


def test_an_experts_prompt_alone_is_taught_on_everyday_questions_and_on_those_of_every_domain() -> None:
    everything = expert_subject("mine", "Be brief.")
    asked = set(everything.questions.texts)
    for known in (load_general().prompts, *(load_domain(n).asked for n in ("education", "creative-writing"))):
        assert len(asked & set(known.texts)) > 50
    assert not asked & set(everything.held_out.texts)


def test_bounds_that_are_not_kept_are_said(tiny_model: Models) -> None:
    result = learnt(tiny_model("llama"))
    assert not replace(result, repetition=(0.1, 0.1)).caveats or result.damage.kl.mean > SMALL.budget
    looping = replace(result, repetition=(0.1, 0.9), options=replace(SMALL, repetition=0.1))
    assert any("repeat themselves more: 90% of 4-grams against 10%" in caveat for caveat in looping.caveats)
    assert "Note: Greedy answers" in learned_table(looping)
