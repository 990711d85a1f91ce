"""The command line: `burnish COMMAND`."""

import sys


def main() -> None:
    """Entry point of the `burnish` command."""
    from burnish.cli.app import run

    sys.exit(run(sys.argv[1:]))
