"""Own writing: what counts as a passage, what its topic is, and how far few passages are believed."""

from pathlib import Path

import pytest
import torch

from burnish.errors import InputError, PromptFileError
from burnish.personal.writing import read_passages, shrinkage, topic_prompt

WORDS = " ".join(f"word{i}" for i in range(45))


def test_few_rows_are_believed_less_and_many_in_full() -> None:
    generator = torch.Generator().manual_seed(0)
    centre = torch.tensor([1.0, 0.0, 0.0])
    weights = [
        float(
            torch.tensor(
                [shrinkage(centre + 2 * torch.randn(n, 3, generator=generator)).weight for _ in range(40)]
            ).mean()
        )
        for n in (4, 16, 64, 1024)
    ]
    assert weights == sorted(weights)
    assert weights[0] < 0.45
    assert weights[-1] > 0.97


def test_the_rows_at_which_half_is_believed_are_the_variance_over_the_squared_difference() -> None:
    rows = torch.tensor([3.0, 1.0]) + 2 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
    found = shrinkage(rows)
    assert found.half == pytest.approx(8 / 10, rel=0.1)
    assert found.weight == pytest.approx(4000 / (4000 + found.half))


def test_rows_that_agree_on_nothing_are_not_believed() -> None:
    balanced = torch.cat([torch.eye(4), -torch.eye(4)])
    assert shrinkage(balanced).weight == 0
    assert shrinkage(balanced).half == float("inf")


def test_shrinking_brings_the_mean_closer_to_the_truth() -> None:
    generator = torch.Generator().manual_seed(2)
    truth, plain, shrunk = 0.3 * torch.randn(40, generator=generator), 0.0, 0.0
    for _ in range(200):
        rows = truth + 2 * torch.randn(6, 40, generator=generator)
        plain += float((rows.mean(0) - truth).square().sum())
        shrunk += float((shrinkage(rows).weight * rows.mean(0) - truth).square().sum())
    assert shrunk < 0.9 * plain


def test_paragraphs_are_joined_until_they_are_passages(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("\n\n".join([WORDS] * 7))
    (tmp_path / "a.txt").write_text("\ufeffshort one\n\n \n\n" + WORDS + "\n\nleft over")
    (tmp_path / "c.csv").write_text("not read")
    found = read_passages(tmp_path)
    assert found == [f"short one\n\n{WORDS}", *[WORDS] * 7]


def test_only_the_persons_own_words_of_markdown_are_read(tmp_path: Path) -> None:
    marked = f"# A heading\n\n> quoted words\n\n```\ncode here\n```\n\n| a | table |\n\n{WORDS}\n"
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "all.md").write_text(marked * 8)
    assert read_passages(tmp_path) == [WORDS] * 8


def test_folders_without_enough_writing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        read_passages(tmp_path / "none")
    (tmp_path / "a.txt").write_text("\n\n".join([WORDS] * 7))
    with pytest.raises(InputError, match="holds 7 passages"):
        read_passages(tmp_path)
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    with pytest.raises(PromptFileError, match="not UTF-8"):
        read_passages(tmp_path)


def test_a_topic_is_named_by_the_longest_words_and_not_by_the_opening() -> None:
    passage = "So, well, I went to the lighthouse. The lighthouse keeper's harbour was empty, 1999, and strangely beautiful there."
    assert topic_prompt(passage, "en") == (
        "Write a passage about these things: lighthouse, keeper, harbour, strangely, beautiful."
    )
    assert "등대지기" in topic_prompt("등대지기는 조용히 바다를 보았다. 등대지기 혼자였다.", "ko")
