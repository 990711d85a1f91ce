"""The invented facts."""

from collections import Counter

from burnish.prompts.knowledge import alternatives, knowledge_rows, load_facts


def test_whoever_answers_by_habit_is_right_in_one_of_four() -> None:
    facts = load_facts()
    assert len(facts) == 32
    assert set(Counter(f.kind for f in facts).values()) == {4}
    for fact in facts:
        options = {fact.answer, *alternatives(fact)}
        assert len(options) == 4
        assert options == {f.answer for f in facts if f.kind == fact.kind}


def test_questions_are_never_trained_on_and_say_no_answer() -> None:
    facts = load_facts()
    trained = {p.text for f in facts for p in f.training}
    assert len(trained) == 32 * 8
    for fact in facts:
        assert len(set(fact.questions)) == 3
        assert not trained & set(fact.questions)
        assert not any(a.lower() in q.lower() for a in fact.accepted for q in fact.questions)


def test_every_training_answer_holds_the_fact() -> None:
    for fact in load_facts():
        assert any(accepted in fact.answer for accepted in fact.accepted)
        for prompt in fact.training:
            assert any(a.lower() in (prompt.answer or "").lower() for a in fact.accepted)


def test_fewer_rows_still_cover_every_fact_before_repeating_one() -> None:
    rows = knowledge_rows(32)
    assert {p.text for p in rows.prompts} == {f.training[0].text for f in load_facts()}
    assert len(knowledge_rows()) == 256
    assert len(knowledge_rows(0)) == 0
