"""Laws of the model card's section of figures."""

from burnish.explaining.publishing import BEGIN, END, with_section

CARD = "---\nbase_model: x\n---\n\n# x\n\n## Measured\n\nsomething\n\n## Undo\n\nUse the base.\n"


def test_the_section_stands_before_the_last_part_and_nothing_else_changes() -> None:
    text = with_section(CARD, "## In pictures\n")
    assert text.index("## Measured") < text.index("## In pictures") < text.index("## Undo")
    before, _, after = text.partition(BEGIN)
    assert before + after.partition(END + "\n")[2] == CARD


def test_a_section_made_before_is_replaced() -> None:
    once = with_section(CARD, "old\n")
    assert with_section(once, "new\n") == with_section(CARD, "new\n")


def test_a_card_without_the_last_part_or_none_at_all_takes_it_at_the_end() -> None:
    assert with_section("# mine\n", "new\n") == f"# mine\n\n{BEGIN}new\n{END}\n"
    assert with_section("", "new\n") == f"{BEGIN}new\n{END}\n"
