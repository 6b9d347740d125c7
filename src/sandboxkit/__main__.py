"""`python -m sandboxkit`."""

from __future__ import annotations

import argparse
import sys

from sandboxkit.cli.doctor import doctor


def main(arguments: list[str] | None = None) -> int:
    """The exit status: `doctor` gives 0 if a sandbox can be made here, 1 if not; 2 is wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m sandboxkit")
    commands = parser.add_subparsers(dest="command", required=True)
    examine = commands.add_parser("doctor", help="what this host can do, and what to change where it cannot")
    examine.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    return doctor(as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
