"""A language is a folder: what is in it is all that the code knows of one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from burnish import languages as package
from burnish.errors import InputError
from burnish.evaluation.damage import refuses
from burnish.languages import language_of, languages, load_language
from burnish.prompts.domains import load_general

GREEK = """
name: Ελληνικά
general: normal-el
title: Everyday prompts in Greek
script: "[α-ω]"
refusals: [συγγνώμη]
"""


@pytest.fixture
def greek(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One more folder beside links to the packaged ones."""
    for code in languages():
        (tmp_path / code).symlink_to(str(package.ROOT / code))
    (tmp_path / "el").mkdir()
    files = {"language.yaml": GREEK, "prompts.txt": "Πες κάτι\n", "held-out.txt": "Τι ώρα είναι;\n", "words.yaml": "{}"}
    for name, text in files.items():
        (tmp_path / "el" / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(package, "ROOT", tmp_path)
    languages.cache_clear()
    yield
    languages.cache_clear()


@pytest.mark.usefixtures("greek")
def test_a_third_language_is_one_folder() -> None:
    assert list(languages()) == ["el", "en", "ko"]
    assert load_general("el").held_out.texts == ["Τι ώρα είναι;"]
    assert language_of(["Πες κάτι", "μια ιστορία"]) == "el"
    assert load_language("el").words("stock") == ()


def test_texts_are_in_the_language_of_their_script_and_otherwise_english() -> None:
    assert language_of(["바다", "산", "sea"]) == "ko"
    assert language_of(["바다", "sea", "hill"]) == language_of([]) == "en"


def test_refusals_are_known_in_every_language_and_as_whole_words() -> None:
    assert refuses("I'm sorry, I can't help.")
    assert refuses("죄송합니다만 도와드릴 수 없습니다.")
    assert not refuses("A sorrylike word.")


def test_an_unpackaged_language_is_refused_with_a_way_out() -> None:
    with pytest.raises(InputError, match="only in en and ko"):
        load_language("fr")
