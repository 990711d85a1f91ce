"""What the model reads is what the user wrote: all of its words, tokens that the model knows, within its context, or an error."""

import re
import shutil
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers

from burnish.cli.app import run
from burnish.errors import BurnishWarning, ContextWarning, InputError, ModelError
from burnish.finding import find_direction
from burnish.model.capture import Tokens, capture
from burnish.model.model import Model, load
from burnish.model.row_edits import Candidate
from burnish.model.scoring import Item, score
from burnish.model.streaming import stream
from burnish.options import ModelOptions
from burnish.prompts import Prompt
from conftest import Folders, Models

FLOAT = ModelOptions(dtype="float32")
LOOP = "{% for m in messages %}<|{{ m['role'] }}|>"
END = "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
PARTS = "{% for p in m['content'] %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}"
LONG = "tide " * 60  # bytes are tokens here, and 256 of them the context


def templated(model: Model, template: str) -> Model:
    model.tokenizer.chat_template = template
    return model


@pytest.mark.parametrize(
    "words",
    [
        PARTS,
        "{{ m['content'][0]['text'] }}",
        "{% if m['content'] is string %}{{ m['content'] }}{% else %}" + PARTS + "{% endif %}",
        "{{ m['content'].split() | join('  ') }}",
    ],
)
def test_every_template_that_writes_the_words_is_used(words: str, tiny_model: Models) -> None:
    text = templated(tiny_model("llama", own=True), LOOP + words + END).render("Tell me\nabout tides ")
    assert text.split() == ["<|user|>Tell", "me", "about", "tides<|assistant|>"] or "Tell me" in " ".join(text.split())


@pytest.mark.parametrize(
    ("template", "who"),
    [
        (LOOP + END, "user"),
        (LOOP + "{% if loop.last %}{{ m['content'] }}{% endif %}" + END, "user"),
        (LOOP + "{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}" + END, "assistant"),
        (LOOP + "{{ m['content'][:5] }}" + END, "user"),
    ],
)
def test_a_template_that_leaves_words_out_is_refused(template: str, who: str, tiny_model: Models) -> None:
    turns = (("user", "Tell me about tides"), ("assistant", "They turn."), ("user", "Why do they?"))
    with pytest.raises(ModelError, match=f"template .* leaves out what the {who} says"):
        templated(tiny_model("llama", own=True), template).render(Prompt(turns))


@pytest.mark.parametrize(
    "turns",
    [
        (("system", "Be terse."), ("assistant", "Yes."), ("user", "Be terse. Why?")),  # the one holds the other
        (("user", "tides"), ("assistant", "turn"), ("user", "tides and how they turn")),
    ],
)
def test_words_that_stand_in_another_turn_do_not_count_for_one_that_is_left_out(
    turns: tuple[tuple[str, str], ...], tiny_model: Models
) -> None:
    model = templated(tiny_model("llama", own=True), "{{ messages[-1].content }}")
    with pytest.raises(ModelError, match="leaves out"):
        model.render(Prompt(turns))
    assert model.render(turns[-1][1]) == turns[-1][1]


@pytest.mark.parametrize("unknown", [None, "<unk>"])
def test_characters_without_a_token_are_said_once(unknown: str | None, tiny_model: Models) -> None:
    model = tiny_model("llama", own=True, template=False)
    signs = ["<pad>", "<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz "]
    words = tokenizers.models.BPE(vocab={sign: i for i, sign in enumerate(signs)}, merges=[], unk_token=unknown)
    model.tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words), eos_token="</s>", unk_token=unknown
    )
    assert len(model.tokens("the sea is blue")) == 15
    with pytest.warns(BurnishWarning, match=r"has no token for a part of 'sea 바다': .*(<unk>|'바다')") as warned:
        model.tokens("sea 바다")
        model.tokens("sea 바다")
    assert len(warned) == 1
    if unknown is None:
        with pytest.raises(InputError, match="is no token"):
            model.tokens("바다")


def test_nothing_is_no_prompt(tiny_model: Models, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model("llama", own=True, template=False)
    model.tokenizer._tokenizer.post_processor = (
        tokenizers.processors.ByteLevel()
    )  # without a token that begins the text
    with pytest.raises(InputError, match="Write a prompt"):
        model.generate([""], tokens=1)
    for options, words in ((("--prompt", " "), "--prompt is empty"), (("--prompt", "Hi", "--tokens", "0"), "no room")):
        assert run(["chat", "nobody/loads-this", *options]) == 2
        assert words in " ".join(capsys.readouterr().err.split())


def test_an_assistants_thoughts_may_be_left_out(tiny_model: Models) -> None:
    template = LOOP + "{{ m['content'].split('</think>')[-1] }}" + END
    turns = (("user", "Why?"), ("assistant", "<think>hm</think>So."), ("user", "And then?"))
    assert "So." in templated(tiny_model("llama", own=True), template).render(Prompt(turns))


def test_tokens_without_a_row_are_refused_by_name_before_any_pass(tiny_folder: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<extra{i}>" for i in range(100)])
    tokenizer.save_pretrained(folder)
    model = load(folder, FLOAT)
    assert max(model.tokens("Hello")) < 300  # tokens that are never written do no harm
    with pytest.raises(ModelError, match=r"<extra99>.* 300 tokens"):
        model.tokens("Hello <extra99>")
    model.tokenizer.chat_template = "<extra99>" + model.tokenizer.chat_template
    prompts = [f"Number {i}" for i in range(16)]
    with pytest.raises(ModelError, match="<extra99>"):
        find_direction(model, enhance=prompts, normal=[p.upper() for p in prompts])


def test_batches_are_filled_up_with_a_token_that_the_model_knows(tiny_model: Models) -> None:
    model = tiny_model("llama", own=True)
    expected = model.generate(["Hello", "Hello to you"], tokens=3)
    model.tokenizer.add_special_tokens({"pad_token": "<beyond all rows>"})
    model.tokenizer.add_tokens([f"<extra{i}>" for i in range(100)])
    model.tokenizer.pad_token = "<extra99>"
    assert model.padding == 0
    assert model.generate(["Hello", "Hello to you"], tokens=3) == expected


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_a_prompt_beyond_a_table_of_positions_is_refused_with_the_numbers(family: str, tiny_model: Models) -> None:
    model = tiny_model(family, template=False)
    ids = model.encode(LONG)
    words = rf"tide tide.* is {len(ids)}[0-9]* tokens long.* 256"
    with pytest.raises(InputError, match=r"tide tide.* tokens long.* 256"):
        model.tokens(LONG)
    with pytest.raises(InputError, match="256"):
        list(stream(model, LONG, tokens=3))
    with pytest.raises(InputError, match=words):
        capture(model, [Tokens(ids, 0, 0)], lambda rows, states: None)
    with pytest.raises(InputError, match=re.escape("256")):
        score(model, [Item(ids[:200], ids[200:])], [Candidate("base")])


def test_an_answer_ends_where_a_table_of_positions_ends(tiny_model: Models) -> None:
    model = tiny_model("gpt2", template=False, own=True)
    model.stop_tokens = frozenset()
    ids = model.encode("tide " * 50)
    assert len(model.continuations([ids], 64)[0]) == 256 - len(ids)
    assert len("".join(stream(model, "tide " * 50, tokens=64))) <= 256 - len(ids)
    with pytest.raises(InputError, match="no room"):
        model.continuations([torch.arange(3, 259).tolist()], 1)


def test_computed_positions_go_on_beyond_the_context_and_that_is_said_once(tiny_model: Models) -> None:
    model = tiny_model("llama", own=True)
    with pytest.warns(ContextWarning, match="256") as warnings:
        model.tokens(LONG)
        model.tokens(LONG)
    assert len(warnings) == 1


def test_half_a_character_is_refused(tiny_model: Models) -> None:
    with pytest.raises(InputError, match="half of a surrogate pair"):
        tiny_model("llama").tokens("a fine picture \ud83d")
