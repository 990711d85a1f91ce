"""The trials of a search: kept in a file, resumed after a kill, shared by processes.

Optuna's journal is a file to which lines are only ever added. Three rules make every beginning of it a state to go on from: a trial
is asked in one line, with its parameters and the process that runs it; the outcomes of a batch are written in one line before
any of its trials is told; what a dead process left behind is told from that line, or failed if there is none. Failed trials do
not count, and what is asked next depends only on those that do.
"""

import hashlib
import itertools
import platform
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from io import SEEK_END
from pathlib import Path
from typing import Any, Literal

import optuna
import psutil  # type: ignore[import-untyped]
from filelock import FileLock
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from burnish.errors import InputError
from burnish.tuning.objective import SLACK

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)  # effect, damage
FOREIGN = timedelta(hours=1)  # how long a process of another host, which cannot be looked at, is taken to be alive
OPENING = b'{"op_code":'  # what the first line of Optuna's journals begins with

Parameters = Mapping[str, float | str]


@dataclass(frozen=True)
class Outcome:
    """What a trial came to."""

    effect: float  # nats per token, or the scorer's unit; 0 where pruned, since it was not measured
    damage: float  # use of the tightest bound, 1 is the limit; where pruned, a lower bound of it
    feasible: bool  # whether good answers kept their likelihood
    pruned: bool = False


@dataclass(frozen=True)
class SearchTrial:
    """A finished trial."""

    number: int  # from 0, in the order asked; failed trials are not counted
    parameters: Parameters
    outcome: Outcome
    state: Literal["complete", "pruned"]


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna says nothing below a warning, and nothing about being experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(level, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


class Journal:
    """The trials of one search. One process runs one search of a journal at a time; several processes may share it."""

    def __init__(
        self, path: Path | None, identity: str, distributions: Mapping[str, BaseDistribution], seed: int
    ) -> None:
        """path: None keeps the trials in memory. Raises InputError for a file that is no journal or another search's."""
        self._distributions, self._seed = dict(distributions), seed
        process = psutil.Process()
        self._owner = {"host": platform.node(), "pid": process.pid, "started": process.create_time()}
        self._lock: AbstractContextManager[Any] = nullcontext() if path is None else _Lock(_checked(path))
        with self._lock:
            storage = InMemoryStorage() if path is None else _storage(path, self._lock)
            # The name is written together with the study: a kill cannot leave a study without its identity.
            name = f"burnish {identity}"
            if any(study.study_name != name for study in storage.get_all_studies()):
                raise InputError(
                    f"{path} holds a search of another model, other prompts or other options, and trials of the two cannot be "
                    "compared. Pass another --journal, or the options that this one was started with."
                )
            self._study = optuna.create_study(
                storage=storage, study_name=name, directions=DIRECTIONS, load_if_exists=True
            )
            if "identity" not in self._study.user_attrs:
                self._study.set_user_attr("identity", identity)

    def ask(self, batch: int, total: int, seeds: Sequence[Parameters] = ()) -> dict[int, Parameters]:
        """At most `batch` new trials by number, never more than `total` with those finished and running: none while others run
        the last ones. seeds: parameters tried before anything is sampled; what they lack is sampled."""
        with self._lock:
            trials = self._study.get_trials(deepcopy=False)
            self._settle(t for t in trials if t.state == TrialState.RUNNING and self._left_behind(t))
            trials = self._study.get_trials(deepcopy=False)
            counted = [trial for trial in trials if trial.state != TrialState.FAIL]
            # A stream of random numbers belongs to one batch: a killed batch that is asked again gets its own back, and two
            # processes never the same.
            streams = {trial.user_attrs["stream"] for trial in counted}
            stream = next(number for number in itertools.count() if number not in streams)
            tried = {trial.user_attrs["seed"] for trial in counted}
            untried = [number for number in range(len(seeds)) if number not in tried][:batch]
            replica = self._replica(counted, stream)
            for number in untried:
                replica.enqueue_trial(dict(seeds[number]))
            asked: dict[int, Parameters] = {}
            for slot in range(min(batch, total - len(counted))):
                parameters = replica.ask(self._distributions).params
                seed = untried[slot] if slot < len(untried) else None
                self._study.add_trial(
                    create_trial(
                        state=TrialState.RUNNING,
                        params=parameters,
                        distributions=self._distributions,
                        user_attrs={"owner": self._owner, "stream": stream, "seed": seed},
                    )
                )
                asked[len(trials) + slot] = parameters
            return asked

    def record(self, outcomes: Mapping[int, Outcome]) -> None:
        """Writes what the trials of a batch came to, all or none. `settle` tells it."""
        key = f"outcomes from {min(outcomes)}"
        self._study.set_user_attr(key, {str(number): astuple(outcome) for number, outcome in outcomes.items()})

    def settle(self, numbers: Collection[int]) -> None:
        """Tells these trials what was recorded, and fails those of which nothing was."""
        with self._lock:
            trials = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            self._settle(trial for trial in trials if trial.number in numbers)

    def finished(self) -> tuple[SearchTrial, ...]:
        """Every finished trial, of all processes, in the order asked."""
        told = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        outcomes = self._outcomes()
        return tuple(
            SearchTrial(
                number,
                dict(trial.params),
                outcomes[trial.number],
                "pruned" if outcomes[trial.number].pruned else "complete",
            )
            for number, trial in enumerate(told)
        )

    def _outcomes(self) -> dict[int, Outcome]:
        batches = [value for key, value in self._study.user_attrs.items() if key.startswith("outcomes from ")]
        return {int(number): Outcome(*values) for batch in batches for number, values in batch.items()}

    def _settle(self, trials: Iterable[FrozenTrial]) -> None:
        outcomes = self._outcomes()
        for trial in trials:
            outcome = outcomes.get(trial.number)
            if outcome is None:
                self._study.tell(trial.number, state=TrialState.FAIL)
            elif outcome.pruned:
                self._study.tell(trial.number, state=TrialState.PRUNED)
            else:
                self._study.tell(trial.number, (outcome.effect, outcome.damage))

    def _left_behind(self, trial: FrozenTrial) -> bool:
        """Whether nobody runs this trial any more. This process has none running when it asks."""
        owner = trial.user_attrs["owner"]
        if owner["host"] != self._owner["host"]:
            return trial.datetime_start is not None and datetime.now() - trial.datetime_start > FOREIGN
        return owner == self._owner or not _alive(owner["pid"], owner["started"])

    def _replica(self, trials: Iterable[FrozenTrial], stream: int) -> optuna.Study:
        """A study in memory with these trials and a fresh sampler: what it asks depends on nothing else."""
        digest = hashlib.sha256(f"{self._seed} {stream}".encode()).digest()
        sampler = TPESampler(seed=int.from_bytes(digest[:4], "big"), multivariate=True, constant_liar=True)
        study = optuna.create_study(directions=DIRECTIONS, sampler=sampler)
        outcomes = self._outcomes()
        for trial in trials:
            constraints = None
            if trial.state.is_finished():
                outcome = outcomes[trial.number]
                # Above 0 is infeasible: trials beyond the budget teach the sampler where not to look.
                constraints = {"budget": outcome.damage - SLACK, "likelihood": float(not outcome.feasible)}
            study.add_trial(
                create_trial(
                    state=trial.state,
                    values=trial.values,
                    params=trial.params,
                    distributions=self._distributions,
                    constraints=constraints,
                )
            )
        return study


class _Lock(JournalFileOpenLock):
    """A lock that the operating system takes back from a killed process, which Optuna's own locks are not. Its holder may take it
    again: asking holds it around all the lines that it writes."""

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal
        self._held = FileLock(f"{journal}.burnish-lock")

    def acquire(self) -> bool:
        outermost = not self._held.is_locked
        self._held.acquire()
        if outermost:
            _mend(self._journal)
        return True

    def release(self) -> None:
        self._held.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _checked(path: Path) -> Path:
    """The path of a file that can be written to and is new or begins as a journal: nothing of another file is touched."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            opening = file.read(len(OPENING))
    except OSError as error:
        raise InputError(
            f"{path} cannot be used as a journal: {error}. Pass a file in a folder that can be written to."
        ) from error
    if opening != OPENING[: len(opening)]:
        raise InputError(f"{path} is not the journal of a search. Pass a new file, or one that a search has written.")
    return path


def _mend(path: Path) -> None:
    """Cuts off a line that a killed process wrote in part: the next one would be joined to it."""
    with path.open("r+b") as file:
        size = file.seek(0, SEEK_END)
        file.seek(max(0, size - 1))
        if file.read() not in (b"", b"\n"):
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _storage(path: Path, lock: Any) -> JournalStorage:
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{path} is damaged and cannot be read as a journal ({error!r}). Move it away to begin anew."
        ) from error


def _alive(pid: int, started: float) -> bool:
    """Whether the process that had this number and start (seconds since 1970) still runs."""
    try:
        process = psutil.Process(pid)
        # Numbers are given again; the start differs. Clocks that are set move it by a little.
        return bool(abs(process.create_time() - started) < 2 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # someone else's, and running
        return True
