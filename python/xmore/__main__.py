"""The command line tool: ``xmore``, or ``python -m xmore``."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Runs the tool with the program's arguments; returns its exit status."""
    # Handled as by the tool alone. What the caller has set to be ignored, as nohup does, stays ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    from xmore._native import run_command_line

    return run_command_line(["xmore", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
