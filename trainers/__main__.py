"""The console script: `mm-keras COMMAND`, or `python -m trainers COMMAND`."""

import sys


def _train():
    from trainers import mm

    return mm


def _predict():
    from trainers import predict

    return predict


def _report():
    from trainers import report

    return report


def _study():
    from trainers import study

    return study


COMMANDS = {
    "train": (_train, (), "train, evaluate and export (trainers.mm)"),
    "predict": (_predict, (), "predict new images (trainers.predict)"),
    "check": (_train, ("--stage=doctor",), "check a data set before training"),
    "report": (_report, (), "tables and figures of finished runs (trainers.report)"),
    "study": (_study, (), "compare settings over several seeds (trainers.study)"),
}
"""{command: (function that imports its module, flags that come first, summary)}."""


def main() -> None:
    """Run the command that the first argument names.

    Raises:
        SystemExit: at the end of the command; the status is 2 for an unknown command.
    """
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("--help", "help"):
        print(_usage())
        sys.exit(0)
    if name not in COMMANDS:
        problem = f"unknown command {name!r}\n\n" if name else ""
        sys.exit(_with_status(f"{problem}{_usage()}"))
    load, flags, _ = COMMANDS[name]
    sys.argv = [f"{sys.argv[0]} {name}", *flags, *sys.argv[2:]]
    load().start()


def _usage() -> str:
    lines = [f"  {name:<9}{summary}" for name, (*_, summary) in COMMANDS.items()]
    return "\n".join(["usage: mm-keras COMMAND [--help] ...", "", *lines])


def _with_status(text) -> int:
    print(text, file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
