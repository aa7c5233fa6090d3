"""
The command ``forge-registry``: runs the registry, or speaks to one that runs.
"""

from __future__ import annotations

import sys

#: What speaks to a registry that runs; `forgereg.cli.commands` has them.
COMMANDS = ("build", "builds", "cancel", "log", "retry", "sweep")

#: What looks at everything that a registry needs; `forgereg.cli.doctor` has it.
DOCTOR = "doctor"


def run() -> None:
    """Do what the first word says; without one, run the registry in the foreground."""
    words = sys.argv[1:]
    names = ", ".join((*COMMANDS, DOCTOR))
    # Only what is needed is imported: either half takes a while.
    if words and words[0] in COMMANDS:
        from forgereg.cli.commands import main

        main()
    elif words and words[0] == DOCTOR:
        from forgereg.cli.doctor import main as examine

        examine(words[1:])
    elif words and not words[0].startswith("-"):
        raise SystemExit(
            f"forge-registry: there is no command {words[0]!r}; there are {names}"
        )
    else:
        if words[:1] in (["-h"], ["--help"]):
            print(f"Commands for a registry that runs: {', '.join(COMMANDS)}.")
            print(f"Command that says what is wrong, if anything is: {DOCTOR}.")
            print("'forge-registry <command> --help' tells about each.\n", flush=True)
        from forgereg import tap

        tap.run()
