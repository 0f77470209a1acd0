"""The start and the end of a command: its help, and errors as sentences.

An error that a user can fix is one sentence, not a traceback.
"""

import contextlib
import os
import re
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from trainers import config
from trainers.config import terminal

_SIGTERM = 128 + signal.SIGTERM


_REPEATED = re.compile(r";\s+repeat this option.*", re.DOTALL)  # as absl adds it
_WIDTH = 100  # columns of a help text


def start(main: Callable[[list[str]], None], everyday: Sequence[str] = ()) -> None:
    """Parse the flags and run a command; `--help` prints the help and exits.

    Args:
        main: gets the arguments that are no flags, as `absl.app.run` calls it.
        everyday: names of the flags that the help lists first.
    """
    if any(argument in ("--help", "-h", "-help") for argument in sys.argv[1:]):
        with contextlib.suppress(BrokenPipeError):  # a pager was closed
            print(help_text(main, everyday), flush=True)
        sys.exit(0)
    app.run(main)


def help_text(main: Callable[[list[str]], None], everyday: Sequence[str] = ()) -> str:
    """Return the help of a command: its docstring, the everyday flags, and the others."""
    module = sys.modules[main.__module__]
    name = sys.argv[0] if main.__module__ == "__main__" else main.__module__
    found = {flag.name: flag for flag in flags.FLAGS.get_key_flags_for_module(name)}
    first = [found.pop(name) for name in everyday]
    rest = [found[name] for name in sorted(found)]
    parts = [module.__doc__.strip(), ""]
    for title, group in (("Everyday flags:", first), ("Other flags:", rest)):
        if group:
            parts += [title, *(line for flag in group for line in _described(flag)), ""]
    return "\n".join(parts).strip()


def _described(flag) -> list[str]:
    usage = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}="
    text = f"  {usage:<20}{_REPEATED.sub('', flag.help)}"
    return textwrap.wrap(text, _WIDTH, subsequent_indent=" " * 22)


def call(function: Callable[[], None]) -> None:
    """Call the body of a command, and exit with one sentence if it fails.

    Wrong settings and damaged files, a full disk, missing permissions, and an interruption by the
    user are expected. Any other error keeps its traceback. `--verbosity=1` prints all tracebacks.

    Raises:
        SystemExit: the body failed; the exit status is 1, or 130 and 143 after SIGINT and SIGTERM.
    """
    signal.signal(signal.SIGTERM, _stop)
    try:
        function()
    except KeyboardInterrupt:
        sys.exit(_interrupted(128 + signal.SIGINT))
    except _Terminated:
        sys.exit(_interrupted(_SIGTERM))
    except Exception as error:
        message = sentence(error)
        if message is None:
            raise
        if logging.level_debug():
            traceback.print_exc()
        sys.exit(terminal.printable(f"error: {message}"))


class _Terminated(BaseException):
    """SIGTERM was received."""


def _stop(*_):
    raise _Terminated


def _interrupted(status):
    print("stopped; the same command continues the run", file=sys.stderr)
    return status


def sentence(error: Exception) -> str | None:
    """Return the message for an error that a user can fix, None for any other error."""
    if isinstance(error, config.UserError):
        return str(error)
    if isinstance(error, OSError):
        return _about_file(error)
    if isinstance(error, MemoryError):
        return _out_of_memory(_first_line(error, error))
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow and isinstance(error, tensorflow.errors.OpError):
        return _about_operation(error, tensorflow.errors)
    return None


def _about_file(error):
    reason = _first_line(error, error.strerror or error)
    where = f"{os.fspath(error.filename)}: " if error.filename else ""
    return f"{where}{reason}. {_advice(reason)}"


def _about_operation(error, errors):
    """Return the message for files that TensorFlow could not read or write; None for other ops."""
    of_files = (
        errors.ResourceExhaustedError,
        errors.PermissionDeniedError,
        errors.DataLossError,
        errors.NotFoundError,
        errors.FailedPreconditionError,
        errors.UnknownError,
    )
    reason = _first_line(error, error.message)
    is_memory = isinstance(error, errors.ResourceExhaustedError) and "allocat" in reason
    if is_memory:
        return _out_of_memory(reason)
    return f"{reason}. {_advice(reason)}" if isinstance(error, of_files) else None


def _out_of_memory(reason):
    return f"out of memory: {reason}. Use smaller batches, crops or patches."


def _first_line(error, text):
    lines = str(text).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _advice(reason):
    lowered = reason.lower()
    if "no space" in lowered or "quota" in lowered:
        return "Free some space; the same command continues the run."
    if any(text in lowered for text in ("permission", "permitted", "read-only")):
        return (
            "Choose a folder that you may write (--workdir, --output, or TFDS_DATA_DIR for data "
            "sets)."
        )
    if "not a directory" in lowered or "file exists" in lowered:
        return "A file is in the place of a folder: choose another one, or move the file away."
    return "Restore the file; the same command continues the run."
