"""The page is well-formed, loads nothing, shows every number, and shows untrusted text as text."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from burnish.evaluation.pairs import Sample
from burnish.explaining.facts import (
    AppliedGain,
    Explanation,
    LayerTokens,
    TokenWeight,
)
from burnish.explaining.page import MISSING, render_page
from burnish.explaining.summary import summarise
from explaining_example import FEW_LAYERS, PROMPTS, direction, evaluation, full, learnt, minimal

VOID = {"meta", "br", "input", "link", "img", "hr"}
SCRIPT, IMAGE, TEMPLATE = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}{% raw %}"
CONTROL, TURNED, LONE = "a\x00b\x1b[31m", "abc\u202edef\u2066", "\ud83d"
EMOJI, HEBREW, LONG = "👩‍🚀🏳️‍🌈", "שלום עולם", "long " + "z" * 100_000
HOSTILE = (SCRIPT, IMAGE, TEMPLATE, CONTROL, TURNED, LONE, EMOJI, HEBREW, LONG)


class Parsed(HTMLParser):
    """Elements, attributes and text of a page; unclosed or crossed tags are collected in `wrong`."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def tags(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in names]


def hostile() -> Explanation:
    """Every place that holds text of prompts, models or files holds all of the hostile texts."""
    bare = minimal().directions[0]
    everything = " ".join(HOSTILE)
    words = tuple(TokenWeight(text, 1.0) for text in HOSTILE)
    return minimal(
        model=everything,
        title=everything,
        directions=(replace(bare, name=everything, title=everything, tokens=(LayerTokens(3, words, words, 4.0),)),),
        answers=tuple(Sample(t, t, "") for t in HOSTILE),
        versions={everything: everything},
    )  # fmt: skip


PAGES = {
    name: render_page(facts)
    for name, facts in {"full": full(), "minimal": minimal(), "hostile": hostile(), "learnt": learnt()}.items()
}
PARSED = {name: Parsed(page) for name, page in PAGES.items()}


def every_tag_is_closed_in_order(page: Parsed, source: str) -> None:
    assert page.wrong == []


def it_is_small_loads_nothing_and_runs_nothing(page: Parsed, source: str) -> None:
    assert len(source.encode("utf-8")) < 3_000_000
    assert not re.search(r"https?://", source)
    assert not page.tags("script", "img", "link", "iframe", "object", "embed", "base", "form")
    for _, attributes in page.elements:
        assert not [a for a in attributes if a.startswith("on") or a in ("src", "action", "xlink:href")]
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in source.replace("url(#", "")
    policies = [m["content"] for m in page.tags("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def ids_are_unique_and_every_link_and_label_finds_its_target(page: Parsed, source: str) -> None:
    ids = Counter(a["id"] for _, a in page.elements if "id" in a)
    assert ids.most_common(1)[0][1] == 1
    targets = [(a["href"] or "")[1:] for tag, a in page.elements if tag == "a"]
    targets += [a["aria-labelledby"] or "" for _, a in page.elements if "aria-labelledby" in a]
    assert set(targets) <= set(ids)


def headings_are_in_order_landmarks_are_there_and_heads_of_tables_have_a_scope(page: Parsed, source: str) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for landmark in ("header", "nav", "main", "footer"):
        assert len(page.tags(landmark)) == 1
    assert page.tags("html")[0]["lang"] == "en"
    assert page.tags("a")[0]["class"] == "skip"
    assert all(a.get("scope") in ("col", "row") for a in page.tags("th"))


LAWS = (
    every_tag_is_closed_in_order,
    it_is_small_loads_nothing_and_runs_nothing,
    ids_are_unique_and_every_link_and_label_finds_its_target,
    headings_are_in_order_landmarks_are_there_and_heads_of_tables_have_a_scope,
)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_keeps_the_laws_of_pages(name: str) -> None:
    for law in LAWS:
        law(PARSED[name], PAGES[name])


def test_every_chart_is_named_and_has_its_numbers_below() -> None:
    page = PARSED["full"]
    charts = [a for a in page.tags("figure") if a.get("class") == "chart"]
    drawings = page.tags("svg")
    numbers = [a for a in page.tags("details") if a.get("class") == "numbers"]
    assert len(charts) == len(drawings) == len(numbers) == 2 + 3
    assert all(d["role"] == "img" and d["aria-label"] for d in drawings)


def test_the_summary_is_on_the_page_word_for_word() -> None:
    text, summary = PARSED["full"].text, summarise(full())
    for sentence in (summary.verdict, *(s for card in summary.cards for s in card.sentences), *summary.caveats):
        assert sentence.replace("`", "") in text


def test_key_numbers_of_the_facts_are_on_the_page() -> None:
    text, facts = PARSED["full"].text, full()
    assert facts.evaluation is not None and facts.attribution is not None
    for q in facts.directions[0].quality:
        assert f"{q.auroc:.4f}" in text and f"{q.null_auroc:.4f}" in text
    for gain in facts.gains:
        assert f"{gain.asked:.4f}" in text
    for effect in facts.evaluation.effects:
        assert f"{effect.above.mean:+.3f}" in text and f"{effect.likelihood.low:+.3f}" in text
    for statistic in facts.evaluation.statistics:
        assert statistic.name in text
    assert facts.directions[0].likenesses is not None
    for likeness in facts.directions[0].likenesses.named:
        assert likeness.name in text and f"{likeness.cosine:+.3f}" in text
    damage = facts.evaluation.damage
    for number in (f"{damage.perplexity_base:.2f}", f"{damage.kl_max:.2f}", f"{damage.kl_p95:.3f}"):
        assert number in text
    for word in facts.directions[0].tokens[1].promoted:
        assert f"{word.weight:+.2f}" in text and word.token in text
    for name, version in facts.versions.items():
        assert f"{name} {version}" in text


def test_learnt_directions_are_told_by_what_they_write_and_when_they_act() -> None:
    text = PARSED["learnt"].text
    for layer in range(FEW_LAYERS):
        for number, gain in ((1, "+0.40"), (2, "+0.10"), (3, "-0.20")):
            assert f"Layer {layer}, direction {number}: gain {gain}" in text
    assert "3 directions a layer from expert prompt 5f3a" in text
    assert f"“{PROMPTS[0]}” (+2.50)" in text and "imagine" in text
    assert "difference between the mean state" not in text
    assert MISSING["says"] in text and MISSING["likenesses"] not in text


def test_missing_parts_say_what_to_pass() -> None:
    text = PARSED["minimal"].text
    missing = [sentence.replace("`", "") for key, sentence in MISSING.items() if key not in ("gains", "acting", "says")]
    assert [s for s in missing if s not in text] == []
    assert not [s for s in missing if s in PARSED["full"].text]
    assert MISSING["gains"] in render_page(minimal(gains=()))
    assert MISSING["acting"] in render_page(learnt(acting=None))


def test_texts_of_strangers_are_shown_as_cut_text_with_signs_for_hidden_characters() -> None:
    parsed, page = PARSED["hostile"], PAGES["hostile"]
    for text in (SCRIPT, IMAGE, TEMPLATE, EMOJI, HEBREW):
        assert text in parsed.text
    assert SCRIPT not in page and "<img" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page)
    assert "a\u2400b\u241b[31m" in page and "abc\\u202edef\\u2066" in page and "\\ud83d" in page
    assert "more characters)" in page and "z" * 3000 not in page
    pieces = parsed.tags("bdi")
    assert len(pieces) > 2 * len(HOSTILE) and all(p == {"dir": "auto"} for p in pieces)


@pytest.mark.full
def test_a_page_of_ten_directions_in_a_deep_model_is_small() -> None:
    directions = tuple(direction(f"set-{i}.txt", f"set-{i}.txt", i, layers=80) for i in range(10))
    gains = tuple(AppliedGain(layer, d, 0.5, 0.5) for layer in range(80) for d in range(10))
    page = render_page(full(directions=directions, gains=gains))
    assert len(page.encode("utf-8")) < 3_000_000


def test_the_same_facts_give_the_same_bytes() -> None:
    assert render_page(minimal()) == PAGES["minimal"]


def test_an_evaluation_without_refusals_affinity_and_statistics_has_a_page() -> None:
    bare = replace(evaluation(harmful=0), affinity=None, statistics=(), samples=())
    page = Parsed(render_page(minimal(evaluation=bare)))
    assert page.wrong == [] and "No harmful requests were tried." in page.text
