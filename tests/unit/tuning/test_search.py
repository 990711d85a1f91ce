"""A search finds what is planted, and comes to the same trials however often it is killed and whoever shares it.

Run as a script, this file is one of the processes that share a journal.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from burnish.artifacts.direction import Enhancement
from burnish.errors import InputError
from burnish.tuning import journal as journals
from burnish.tuning.journal import Outcome, SearchTrial
from burnish.tuning.search import (
    Evaluator,
    SearchResult,
    SearchSpace,
    enhancement_of,
    gains_of,
    lower_bound,
    result_of,
    search,
)

LAYERS = 12
BATCH = 4
PLANT: dict[str, float | str] = {"dose": 0.5, "centre": 0.6, "width": 0.25, "weight_0": 0.9, "weight_1": -0.4}


def template(rank: int = 1) -> Enhancement:
    return Enhancement(torch.zeros(LAYERS, rank, 4), torch.ones(LAYERS, rank), ())


SPACE = SearchSpace({"residual": template(), "attention": template()})


def planted(enhancements: Sequence[Enhancement]) -> list[Outcome]:
    """The nearer to the planted gains, the more effect; damage grows with the square of the gains, and five budgets are pruned."""
    found = []
    for gains in (e.gains.double() for e in enhancements):
        best = gains_of(PLANT, *gains.shape).double()
        damage = 0.95 * float(gains.square().sum() / best.square().sum())
        effect = 1 - float((gains - best).square().sum() / best.square().sum())
        found.append(Outcome(0.0, damage, False, True) if damage > 5 else Outcome(effect, damage, damage < 4))
    return found


def run(journal: Path | None = None, evaluate: Evaluator = planted, **changes: Any) -> SearchResult:
    arguments = {"trials": 16, "seed": 3, "identity": "one", "batch": BATCH, **changes}
    return search(SPACE, evaluate, journal=journal, **arguments)


def start(journal: Path, log: Path, mode: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, str(journal), str(log), mode])


def until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


def main(journal: Path, log: Path, mode: str) -> None:
    """A process: notes every candidate that it measures."""

    def evaluate(enhancements: Sequence[Enhancement]) -> list[Outcome]:
        with log.open("a") as file:
            file.writelines(json.dumps(e.gains.flatten().tolist()) + "\n" for e in enhancements)
        noted = len(log.read_text().splitlines())
        time.sleep(0.2)
        if mode == "dies at once" or (mode == "dies" and noted > 8):
            time.sleep(1)
            os._exit(1)
        return planted(enhancements)

    log.touch()
    if mode == "shares":
        until(lambda: len(list(log.parent.glob("*.log"))) == 2)
    run(journal, evaluate)


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_optimum_is_found_within_the_budget(seed: int) -> None:
    found = run(trials=120, batch=8, seed=seed)
    assert len(found.trials) == 120
    assert found.chosen is not None
    assert found.chosen.outcome.damage <= 1.05
    assert found.chosen.outcome.effect > 0.85
    assert float(found.chosen.parameters["dose"]) == pytest.approx(0.5, rel=0.35)
    assert float(found.chosen.parameters["centre"]) == pytest.approx(0.6, abs=0.15)
    assert found.pruned == sum(t.outcome.pruned for t in found.trials) > 0


def test_directions_that_work_against_each_other_get_their_signs() -> None:
    space = SearchSpace({"both": template(2)})
    found = search(space, planted, trials=160, seed=0, identity="one").chosen
    assert found is not None
    assert "choice" not in found.parameters
    assert float(found.parameters["weight_0"]) > 0 > float(found.parameters["weight_1"])
    assert found.outcome.effect > 0.7


def test_seeds_are_tried_first_and_moved_into_the_ranges() -> None:
    seeds = [{"choice": "attention", "dose": 9.0, "centre": -1.0, "width": 0.3}, {"dose": 0.5}] * 3
    found = search(SearchSpace(SPACE.choices, seeds), planted, trials=8, seed=0, identity="one", batch=BATCH)
    assert found.trials[0].parameters == {"choice": "attention", "dose": 4.0, "centre": 0.0, "width": 0.3}
    assert [t.parameters["dose"] for t in found.trials[:6]] == [4.0, 0.5] * 3
    assert len({t.parameters["centre"] for t in found.trials}) == 6  # what a seed leaves out is sampled
    with pytest.raises(ValueError, match="gain: not searched over"):
        search(SearchSpace(SPACE.choices, [{"gain": 1.0}]), planted, trials=8, seed=0, identity="one")


def test_the_same_seed_gives_the_same_trials_and_another_seed_others(tmp_path: Path) -> None:
    assert run() == run() == run(tmp_path / "journal")
    assert run().trials != run(seed=4).trials


@pytest.mark.parametrize("step", range(8))
def test_every_beginning_of_a_journal_leads_to_the_same_trials(step: int, tmp_path: Path) -> None:
    """A journal only grows: wherever a search is killed, what is left is a beginning of it, the last line in part or whole."""
    whole = run(tmp_path / "whole")
    lines = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    for number in range(step, len(lines) + 1, 8):
        for rest in (b"", lines[number][: len(lines[number]) // 2] if number < len(lines) else b""):
            cut = tmp_path / "cut"
            cut.write_bytes(b"".join(lines[:number]) + rest)
            assert run(cut) == whole
            cut.unlink()


@pytest.mark.parametrize("last", range(4))
def test_a_search_whose_evaluator_fails_goes_on_as_if_it_had_not(last: int, tmp_path: Path) -> None:
    batches = iter(range(4))

    def failing(enhancements: Sequence[Enhancement]) -> list[Outcome]:
        if next(batches) == last:
            raise MemoryError
        return planted(enhancements)

    for journal in (tmp_path / "journal", None):
        batches = iter(range(4))
        with pytest.raises(MemoryError):
            run(journal, failing)
    assert run(tmp_path / "journal") == run()


def test_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    process = start(tmp_path / "journal", tmp_path / "a.log", "dies")
    assert process.wait() == 1
    measured: list[Enhancement] = []

    def evaluate(enhancements: Sequence[Enhancement]) -> list[Outcome]:
        measured.extend(enhancements)
        return planted(enhancements)

    assert run(tmp_path / "journal", evaluate) == run()
    assert len(measured) == 8  # the first two batches were finished


def test_trials_of_a_process_that_dies_meanwhile_are_taken_over(tmp_path: Path) -> None:
    process = start(tmp_path / "journal", tmp_path / "a.log", "dies at once")
    until(lambda: (tmp_path / "a.log").exists() and (tmp_path / "a.log").stat().st_size > 0)
    said: list[str] = []
    found = run(tmp_path / "journal", trials=BATCH, progress=lambda text, done, total: said.append(text))
    assert process.wait() == 1
    assert found == run(trials=BATCH)
    assert said[0] == "waiting for other processes"
    assert said[-1] == "searching"


def test_two_processes_share_a_journal_and_measure_nothing_twice(tmp_path: Path) -> None:
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    processes = [start(tmp_path / "journal", log, "shares") for log in logs]
    assert [process.wait() for process in processes] == [0, 0]
    parts = [log.read_text().splitlines() for log in logs]
    assert all(parts)
    assert len(parts[0]) + len(parts[1]) == len({*parts[0], *parts[1]}) == 16
    found = run(tmp_path / "journal", lambda _: pytest.fail("measured again"))
    asked = {json.dumps(enhancement_of(t.parameters, SPACE).gains.flatten().tolist()) for t in found.trials}
    assert asked == {*parts[0], *parts[1]}


def test_a_process_of_another_host_is_waited_for_and_then_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal"
    whole = run(journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    asked = [number for number, line in enumerate(lines) if b'"owner"' in line]
    elsewhere = json.loads(lines[asked[-1]])
    elsewhere["user_attrs"]["owner"]["host"] = "elsewhere"
    journal.write_bytes(b"".join(lines[: asked[-1]]) + json.dumps(elsewhere, separators=(",", ":")).encode() + b"\n")

    def waits(text: str, done: int, total: int) -> None:
        if text.startswith("waiting"):
            raise TimeoutError

    with pytest.raises(TimeoutError):
        run(journal, progress=waits)
    monkeypatch.setattr(journals, "FOREIGN", timedelta(0))
    assert len(run(journal).trials) == len(whole.trials)


def test_a_number_given_to_a_new_process_is_not_the_old_process() -> None:
    import psutil

    started = psutil.Process().create_time()
    assert journals._alive(os.getpid(), started)
    assert not journals._alive(os.getpid(), started - 100)
    done = subprocess.Popen([sys.executable, "-c", ""])
    until(lambda: not journals._alive(done.pid, psutil.Process(done.pid).create_time()))  # ended, and not yet asked how
    done.wait()
    assert not journals._alive(done.pid, time.time())


def test_more_trials_go_on_from_fewer(tmp_path: Path) -> None:
    assert run(tmp_path / "journal", trials=8) == run(trials=8)
    assert run(tmp_path / "journal", trials=20) == run(trials=20)
    assert len(run(tmp_path / "journal", trials=8).trials) == 20


def test_a_journal_of_another_search_is_refused(tmp_path: Path) -> None:
    journal = tmp_path / "folder" / "journal"
    run(journal, trials=4)
    before = journal.read_bytes()
    for changes in ({"identity": "two"}, {"seed": 4}, {"batch": 5}):
        with pytest.raises(InputError, match="another model, other prompts or other options"):
            run(journal, trials=4, **changes)
    with pytest.raises(InputError, match="other options"):
        search(SearchSpace({"a": template()}), planted, trials=4, seed=3, identity="one", journal=journal, batch=BATCH)
    assert journal.read_bytes() == before


@pytest.mark.parametrize("text", [b"Tell me a story.", b"Tell\nme\n", b'{"prompt": "Tell"}\n'])
def test_a_file_that_is_no_journal_stays_as_it_is(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(text)
    with pytest.raises(InputError, match="not the journal of a search"):
        run(path)
    assert path.read_bytes() == text
    with pytest.raises(InputError, match="cannot be used as a journal"):
        run(tmp_path)
    path.write_bytes(b'{"op_code":0}\n')
    with pytest.raises(InputError, match="damaged"):
        run(path)


@pytest.mark.parametrize("wrong", [[], [Outcome(math.nan, 0.5, True)] * BATCH, [Outcome(1.0, math.inf, True)] * BATCH])
def test_an_evaluator_must_return_a_number_for_every_candidate(wrong: list[Outcome], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be finite|shorter"):
        run(tmp_path / "journal", lambda _: wrong)
    assert run(tmp_path / "journal") == run()


def test_a_search_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="does nothing"):
        run(trials=0)
    with pytest.raises(InputError, match="at least one enhancement"):
        SearchSpace({})


def test_what_optuna_says_is_muted_for_the_time_of_the_search() -> None:
    during: list[int] = []

    def listening(enhancements: Sequence[Enhancement]) -> list[Outcome]:
        during.append(optuna.logging.get_verbosity())
        if len(during) == 2:
            raise KeyboardInterrupt
        return planted(enhancements)

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(None, listening)
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(before)
    assert during == [optuna.logging.WARNING] * 2


def test_gains_are_a_bump_over_depth() -> None:
    gains = gains_of({"dose": 2.0, "centre": 0.5, "width": 0.25, "weight_0": 1.0, "weight_1": -0.5}, 5, 2)
    torch.testing.assert_close(gains[:, 0], 2 * torch.exp(torch.tensor([-2.0, -0.5, 0.0, -0.5, -2.0])))
    torch.testing.assert_close(gains[:, 1], -0.5 * gains[:, 0])
    assert gains_of({"dose": 2.0, "centre": 0.0, "width": 1.0}, 1, 1).tolist() == [[2.0]]


def test_a_template_says_which_layers_may_be_edited() -> None:
    window = torch.ones(LAYERS, 1)
    window[:4] = 0
    space = SearchSpace({"window": Enhancement(torch.zeros(LAYERS, 1, 4), window, ())})
    edited = enhancement_of({"dose": 1.0, "centre": 0.0, "width": 1.0}, space)
    assert edited.edited_layers() == list(range(4, LAYERS))


@given(st.lists(st.tuples(*[st.floats(0, 3)] * 2, *[st.booleans()] * 2), max_size=30))
def test_the_frontier_is_what_no_trial_beats(rows: list[tuple[float, float, bool, bool]]) -> None:
    trials = [SearchTrial(n, {}, Outcome(*row), "pruned" if row[3] else "complete") for n, row in enumerate(rows)]
    found = result_of(trials)
    eligible = [t for t in trials if t.outcome.feasible and t.state == "complete"]

    def as_good(one: SearchTrial, other: SearchTrial) -> bool:
        return one.outcome.effect >= other.outcome.effect and one.outcome.damage <= other.outcome.damage

    damages = [t.outcome.damage for t in found.frontier]
    assert damages == sorted(damages)
    assert all(t in eligible for t in found.frontier)
    assert not any(as_good(one, other) for one in eligible for other in found.frontier if one.outcome != other.outcome)
    assert all(any(as_good(one, other) for one in found.frontier) for other in eligible)
    inside = [t.outcome.effect for t in eligible if t.outcome.damage <= 1.05]
    assert (found.chosen.outcome.effect if found.chosen else None) == max(inside, default=None)
    assert found.pruned == sum(t.state == "pruned" for t in trials)


@given(st.lists(st.lists(st.floats(0, 1e3), min_size=1, max_size=6), min_size=1, max_size=9), st.data())
def test_an_early_bound_is_never_above_the_mean(answers: list[list[float]], data: st.DataObject) -> None:
    tensors = [torch.tensor(answer, dtype=torch.float64) for answer in answers]
    mean = float(torch.cat(tensors).mean())
    some = data.draw(st.lists(st.sampled_from(range(len(tensors))), unique=True))
    bound = lower_bound([tensors[number] for number in some], sum(map(len, answers)))
    assert 0 <= bound <= mean * (1 + 1e-12)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
