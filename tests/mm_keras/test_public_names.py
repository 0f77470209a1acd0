"""The package's public names, and the imports that they need."""

import subprocess
import sys

import pytest

import mm_keras


def test_mm_keras_imports_without_optional_packages():
    """Keras imports h5py itself where it is installed, so the test blocks the imports."""
    block = "import sys; sys.modules['h5py'] = sys.modules['PIL'] = None"
    code = f"{block}; import mm_keras; mm_keras.MixAndMatch"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", mm_keras.__all__)
def test_every_public_name_exists(name):
    assert getattr(mm_keras, name) is not None


def test_an_unknown_name_raises_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'mm_keras' has no attribute 'nothing'"):
        _ = mm_keras.nothing
