"""Settings and fixtures that several rooms' tests share."""

import json
import os
import pathlib
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # figures and bit-equality are promised on the CPU

import pytest

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # shells ignore it in their background jobs
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def settings_of_the_process_end_with_the_test():
    """Stages set precision and determinism for their process; XLA cannot run with the latter."""
    yield
    if "keras" in sys.modules:
        import keras

        keras.config.set_dtype_policy("float32")
    if "tensorflow" in sys.modules:
        from tensorflow.python.framework import config  # no public way switches it off

        config.disable_op_determinism()


@pytest.fixture(scope="session")
def golden():
    """Function(name) -> content of tests/golden/NAME.json."""
    folder = pathlib.Path(__file__).parent / "golden"
    return lambda name: json.loads((folder / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def real_data():
    """Folder with camvid/ and VOCdevkit/; tests that ask for it are skipped where there is none."""
    path = os.environ.get("MM_TEST_DATA")
    if not path or not pathlib.Path(path).is_dir():
        pytest.skip("MM_TEST_DATA does not name a folder with real data sets")
    return pathlib.Path(path)


@pytest.fixture(scope="session")
def damages():
    """{name: function(path) that damages a file}."""

    def cut(path):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def flip(path):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content))

    return {"cut": cut, "flip": flip, "empty": lambda path: path.write_bytes(b"")}


@pytest.fixture(params=["cut", "flip", "empty"])
def damage(request, damages):
    """Each of `damages` in turn."""
    return damages[request.param]


@pytest.fixture(scope="session")
def prepared_records(tmp_path_factory):
    """Folder with the generated data set; the worker processes of a test run share it."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "prepared"
