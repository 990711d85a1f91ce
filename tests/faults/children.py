"""Forked children: a run that can be killed costs no second start of torch."""

import os
import signal
import sys
import traceback
from collections.abc import Callable

import torch

from burnish.errors import BurnishError

LONGEST = 300  # seconds, after which a child is ended by a signal: nothing waits for ever
CRASHED = 99  # of an action that raised anything but a BurnishError


def started(action: Callable[[], int | None]) -> int:
    """Begins an action in a forked child; returns its process number."""
    process = os.fork()
    if process:
        return process
    code = CRASHED
    signal.alarm(LONGEST)
    try:
        torch.set_num_threads(1)  # threads of the parent's pool are not there after a fork
        code = action() or 0
    except BurnishError as error:
        code = error.exit_code
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)


def ended(process: int) -> int:
    """Waits for a child: its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def kill(process: int) -> int:
    os.kill(process, signal.SIGKILL)
    return ended(process)
