"""Several processes give what one gives, and end together."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from burnish.artifacts.direction import Direction, Enhancement
from burnish.cli.app import run
from burnish.cli.enhance import check_call
from burnish.cli.learn import TeacherOptions
from burnish.errors import InputError, ModelError
from burnish.model.layerwise import load_layered
from burnish.model.model import load
from burnish.model.processes import Processes, joined
from burnish.options import LayerOptions, ModelOptions
from conftest import Folders
from faults.children import ended, started
from processes_example import FLOAT, SPLIT, computed, findings, imitated, learned, note_all, texts

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.xdist_group("faults")  # the worker that forks
LONGEST = 300  # seconds
LEARNING = """
import os, sys, torch
from pathlib import Path
from burnish.model.processes import joined
from processes_example import learned

with joined():
    torch.save(learned(Path(sys.argv[1])), f"{sys.argv[2]}-{os.environ['RANK']}")
"""
FAILING = """
import os, torch
from burnish.errors import InputError
from burnish.model.processes import joined

with joined() as processes:
    try:
        processes.require_same(processes.rank)
    except InputError as error:
        print(error)
    if not processes.first:
        {end}
    processes.summed(torch.zeros(1))
"""


def together(*command: object) -> subprocess.CompletedProcess[str]:
    """Two processes under torchrun, over the loopback."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    environment = {
        **os.environ,
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
    }
    arguments = [*launcher, sys.executable, *map(str, command)]
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=LONGEST, check=False)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def noted(tiny_folder: Folders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes noted. They are forked, with what a launcher sets for each: that costs no new start of torch."""
    folder, inputs, port = (
        tmp_path_factory.mktemp("noted"),
        [tiny_folder(name) for name in ("llama", "lfm2")],
        free_port(),
    )

    def process(rank: int) -> None:
        job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank}
        os.environ |= {name: str(value) for name, value in job.items()} | {"GLOO_SOCKET_IFNAME": "lo"}
        note_all(*inputs, folder)

    children = [started(lambda rank=rank: process(rank)) for rank in (0, 1)]  # type: ignore[misc]
    assert [ended(child) for child in children] == [0, 0]
    return folder


@pytest.mark.enable_socket
@pytest.mark.parametrize("name", ["odd", "all", "protected", "answers", "layer by layer"])
def test_two_processes_find_what_one_finds(name: str, noted: Path, tiny_folder: Folders) -> None:
    alone = findings(tiny_folder("llama"))[name]()
    both = [Direction.load(noted / f"{name}-{rank}") for rank in (0, 1)]
    assert torch.equal(both[0].vectors, both[1].vectors)
    torch.testing.assert_close(both[0].vectors, alone.vectors, rtol=0, atol=2e-6)
    assert both[0].report == both[1].report
    assert both[0].report.auroc == alone.report.auroc
    assert both[0].provenance == alone.provenance


@pytest.mark.enable_socket
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_learn_what_one_learns(rank: int, noted: Path, tiny_folder: Folders) -> None:
    both = torch.load(noted / f"imitated-{rank}")
    for shared, alone in zip(both, imitated(load(tiny_folder("llama"), FLOAT)), strict=True):
        torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.full
@pytest.mark.enable_socket
def test_two_processes_learn_the_directions_of_one(tiny_folder: Folders, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(LEARNING, encoding="utf-8")
    done = together(tmp_path / "script.py", tiny_folder("llama"), tmp_path / "learnt")
    assert done.returncode == 0, done.stderr
    alone = learned(tiny_folder("llama"))
    for rank in (0, 1):
        both = torch.load(tmp_path / f"learnt-{rank}")
        edits = [vectors.mT @ (gains[..., None] * vectors) for vectors, gains in (both, alone)]
        torch.testing.assert_close(edits[0], edits[1], rtol=1e-3, atol=1e-5)


@pytest.mark.enable_socket
@pytest.mark.parametrize("rank", [0, 1])
def test_a_model_split_over_two_processes_computes_what_a_whole_one_does(
    rank: int, noted: Path, tiny_folder: Folders
) -> None:
    alone, split = computed(load(tiny_folder("llama"), FLOAT)), torch.load(noted / f"split-{rank}")
    torch.testing.assert_close(split[0], alone[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(split[1], alone[1], rtol=0, atol=1e-4)
    assert split[2:] == alone[2:]


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("unsplit", "plan for splitting 'lfm2' does not work"),
        ("split", "Load it whole"),
        ("others", "read different prompts, options or models"),
    ],
)
def test_what_processes_cannot_do_together_is_said_in_words(wrong: str, words: str, noted: Path) -> None:
    for rank in (0, 1):
        assert words in (noted / f"refused-{wrong}-{rank}").read_text(encoding="utf-8")


@pytest.mark.full
@pytest.mark.enable_socket
def test_torchrun_enhances_as_one_process_does_and_speaks_once(tiny_folder: Folders, tmp_path: Path) -> None:
    for name, end in (("enhance", "?!"), ("normal", " ...")):
        (tmp_path / f"{name}.txt").write_text("\n".join(texts(13, end)), encoding="utf-8")
    command = [
        "enhance",
        tiny_folder("llama"),
        "--enhance",
        tmp_path / "enhance.txt",
        "--normal",
        tmp_path / "normal.txt",
    ]
    command += ["--enhancement-factor", "0.5", "--form", "enhancement", "--check-prompts", "4", "--force", "--json"]
    done = together("-m", "burnish", *command, "-o", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    assert done.stderr.count("Plan:") == 1
    assert run([str(part) for part in [*command, "-o", tmp_path / "one"]]) == 0
    one, both = Enhancement.load(tmp_path / "one"), Enhancement.load(tmp_path / "two")
    torch.testing.assert_close(both.vectors, one.vectors, rtol=0, atol=2e-6)
    assert torch.equal(both.gains, one.gains)
    assert two["check"]["prompts"] == 4


@pytest.mark.full
@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("raise InputError('The second one has a reason.')", "Process 1 of 2 (counted from 0) failed: The second one"),
        ("os._exit(9)", "ended without a word"),
    ],
)
def test_what_fails_in_one_process_ends_all(end: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(FAILING.format(end=end), encoding="utf-8")
    done = together(tmp_path / "script.py")
    assert done.returncode != 0
    assert message in done.stderr
    assert done.stdout.count("read different prompts") == 2


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("pieces", [0, 1, 5, 12])
def test_shares_are_disjoint_complete_and_even(count: int, pieces: int) -> None:
    costs = [(7 * i) % 11 for i in range(pieces)]
    shares = [Processes(count, rank).share(costs) for rank in range(count)]
    assert sorted(i for share in shares for i in share) == list(range(pieces))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(share == sorted(share) for share in shares)


def test_one_process_has_all_the_work_and_exchanges_nothing() -> None:
    with joined() as processes:
        assert processes == Processes()
    part = torch.ones(2)
    assert processes.summed(part) is part
    assert processes.merged({1: "a"}) == {1: "a"}
    processes.require_same("anything")


@pytest.fixture
def one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launcher tells the first of two processes, none of which exist."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)


def test_a_command_for_one_process_is_refused_in_several(one_of_two: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "no-such-model"]) == InputError.exit_code
    assert "`burnish evaluate` runs in one process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("page", "split", "why"), [(False, True, "start one process with --device spread"), (True, False, "torchrun")]
)
def test_what_processes_cannot_share_is_refused(page: bool, split: bool, why: str, one_of_two: None) -> None:
    with pytest.raises(InputError, match=why):
        check_call("learned", TeacherOptions(), LayerOptions(), page=page, split=split)
    check_call("learned", TeacherOptions(), LayerOptions(), page=False, split=False)


def test_placements_that_exclude_each_other_are_refused(
    tiny_folder: Folders, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(ModelError, match="this one is alone"):
        load(tiny_folder("llama"), SPLIT)
    request.getfixturevalue("one_of_two")
    for options, message in (
        (ModelOptions(device="spread"), "every process would spread"),
        (ModelOptions(device="spread", tensor_parallel=True), "Pass one of them"),
    ):
        with pytest.raises(ModelError, match=message):
            load(tiny_folder("llama"), options)
    with pytest.raises(ModelError, match="no plan for splitting the layers of 'gpt2'"):
        load(tiny_folder("gpt2"), SPLIT)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ModelError, match="4 and 2 attention heads cannot be dealt out to 4"):
        load(tiny_folder("llama"), SPLIT)
    with pytest.raises(ModelError, match="nothing to split"):
        load_layered(tiny_folder("llama"), SPLIT)
