"""The start of TensorFlow, without its own lines in the terminal."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from trainers import SHOWS_LOGS

# Lines of the C++ logger that users cannot act on: information, warnings, and the missing driver of
# a machine without a GPU. TensorFlow prints them before it reads TF_CPP_MIN_LOG_LEVEL.
_NOISE = re.compile(
    r"[IW]\d{4} \d\d:\d\d:|[IW]0000 00:00:|WARNING: All log messages before absl::InitializeLog"
    r"|E0000 .*failed call to cuInit|To enable the following instructions: "
)


def load_tensorflow() -> None:
    """Import TensorFlow and find the devices; hold back lines that users cannot act on.

    Nothing is held back if the user set TF_CPP_MIN_LOG_LEVEL.
    """
    with contextlib.nullcontext() if SHOWS_LOGS else quiet():
        import tensorflow as tf

        tf.config.list_physical_devices()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the standard error of the body, native code included.

    At the end, all lines but the noise of the C++ logger are printed; after an error, all lines.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        is_complete = False
        try:
            yield
            is_complete = True
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            lines = held.read().decode(errors="replace").splitlines(keepends=True)
            shown = [x for x in lines if not (is_complete and _NOISE.match(x))]
            sys.stderr.write("".join(shown))
