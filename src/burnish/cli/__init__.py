"""The command line: `burnish COMMAND`."""

import os
import sys

PIPE_CLOSED = 141  # as a shell reports a program that wrote to nobody (128 + SIGPIPE)


def main() -> None:
    """Entry point of the `burnish` command."""
    os.environ.setdefault(
        "PYTORCH_ENABLE_MPS_FALLBACK", "1"
    )  # what Metal lacks runs on the CPU; read when torch is imported
    from burnish.cli.app import refused, run
    from burnish.cli.console import prepare

    prepare()
    code = 0
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except OSError as error:  # of standard output: its reader left, as `head` does, or its disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is written on the way out
        if isinstance(error, BrokenPipeError):
            code = PIPE_CLOSED
        elif code == 0:
            code = refused(error)
    sys.exit(code)
