"""Hostile and broken weight files: each raises a `WeightsError` that names file and layer,
in less than a second and 64 MiB, and no other file is opened.

All are loaded in one process of their own, which reports time, growth of the peak memory and every
opened file. It does not see files that HDF5 opens in C. In these cases the other file is a pipe
without a writer, so a process that opens it hangs.
"""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[3]
LAYERS = {"conv1_1": (4, 3, 3, 3), "conv2_1": (8, 4, 3, 3), "conv3_1": (16, 8, 3, 3)}

_LOAD = """
import json, pathlib, sys, time
from mm_keras import backbones, weights

def status(key):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":")) / 1024

def load(path):
    # Linux forgets the peak of the resident memory at this command (man 5 proc, clear_refs).
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    memory = status("VmRSS")
    opened.clear()
    start, result = time.perf_counter(), {"error": None}
    try:
        weights.load(backbone, path)
    except weights.WeightsError as error:
        result["error"] = str(error)
    seconds = time.perf_counter() - start
    touched = [name for name in set(opened) - {path} if not name.endswith(".pyc")]
    return {**result, "seconds": seconds, "opened": touched, "mib": status("VmHWM") - memory}

backbone = backbones.build("testing")
opened = []
paths = json.loads(sys.argv[1])
load(paths[0])  # imports what is imported late
before = [variable.numpy().tobytes() for variable in backbone.weights]
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
results = {path: load(path) for path in paths}
same = before == [variable.numpy().tobytes() for variable in backbone.weights]
print(json.dumps({"unchanged": same, "results": results}))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    return {
        name: [rng.normal(size=shape).astype("f4"), np.zeros(shape[0], "f4")]
        for name, shape in LAYERS.items()
    }


# HDF5: function(file, a pipe that nobody may open), after which conv2_1/0 is not what it seems.


def _external_link(file, pipe):
    file["data/conv2_1/0"] = h5py.ExternalLink(pipe, "/data/conv2_1/0")


def _external_group(file, pipe):
    del file["data/conv2_1"]
    file["data/conv2_1"] = h5py.ExternalLink(pipe, "/data/conv2_1")


def _soft_link(file, pipe):
    file["data/conv2_1/0"] = h5py.SoftLink("/data/conv1_1/0")


def _external_storage(file, pipe):
    shape = LAYERS["conv2_1"]
    size = 4 * int(np.prod(shape))
    file.create_dataset("data/conv2_1/0", shape, "f4", external=[(pipe, 0, size)])


def _virtual(file, pipe):
    shape = LAYERS["conv2_1"]
    layout = h5py.VirtualLayout(shape, "f4")
    layout[:] = h5py.VirtualSource(pipe, "data", shape)
    file.create_virtual_dataset("data/conv2_1/0", layout)


def _virtual_unlimited(file, pipe):
    layout = h5py.VirtualLayout((8, 4, 3, 3), "f4", maxshape=(None, 4, 3, 3))
    source = h5py.VirtualSource(pipe, "data", (8, 4, 3, 3), maxshape=(None, 4, 3, 3))
    full = h5py.h5s.UNLIMITED
    layout[0:full] = source[0:full]
    file.create_virtual_dataset("data/conv2_1/0", layout)


def _object_dtype(file, pipe):
    file.create_dataset("data/conv2_1/0", (8,), h5py.special_dtype(vlen=str))


def _reference_dtype(file, pipe):
    file.create_dataset("data/conv2_1/0", (8,), h5py.ref_dtype)


def _compound_dtype(file, pipe):
    file["data/conv2_1/0"] = np.zeros(8, [("a", "f4"), ("b", "f4")])


def _bomb(file, pipe):
    file.create_dataset("data/conv2_1/0", (2**20, 2**20), "f4")


def _filtered_bomb(file, pipe):
    file.create_dataset(
        "data/conv2_1/0", (2**20, 2**20), "f4", chunks=(2**10, 2**10), compression=1
    )


def _huge_chunks(file, pipe):
    shape = LAYERS["conv2_1"]
    how = {"chunks": (2**16, 1, 3, 3), "maxshape": (None, 4, 3, 3), "compression": 1}
    file.create_dataset("data/conv2_1/0", data=np.zeros(shape, "f4"), **how)


def _foreign_filter(file, pipe):
    file.create_dataset("data/conv2_1/0", LAYERS["conv2_1"], "f4", scaleoffset=2)


def _cycle(file, pipe):
    del file["data/conv2_1"]
    file["data/conv2_1"] = file["data"]


HDF5 = {
    "external link": (_external_link, "conv2_1/0 is a ExternalLink"),
    "external link to a group": (_external_group, "conv2_1 is a ExternalLink"),
    "soft link": (_soft_link, "conv2_1/0 is a SoftLink"),
    "external storage": (_external_storage, "conv2_1/0 keeps its values in another file"),
    "virtual data set": (_virtual, "conv2_1/0 is a virtual data set"),
    "virtual data set without end": (_virtual_unlimited, "conv2_1/0 is a virtual data set"),
    "object dtype": (_object_dtype, "conv2_1/0 has dtype object"),
    "reference dtype": (_reference_dtype, "conv2_1/0 has dtype object"),
    "compound dtype": (_compound_dtype, "conv2_1/0 has dtype"),
    "shape bomb": (_bomb, "conv2_1/0 promises 4398046511104 bytes"),
    "compressed shape bomb": (_filtered_bomb, "conv2_1/0 promises 4398046511104 bytes"),
    "huge chunks": (_huge_chunks, "conv2_1/0 has chunks of 2359296 bytes"),
    "foreign filter": (_foreign_filter, "conv2_1/0 is compressed otherwise"),
    "cycle": (_cycle, "conv2_1 has a second name"),
}
CAFFEMODEL = {
    "nan": ("conv2_1/0 has values that are not finite", lambda b: b["conv2_1"][0].fill(np.nan)),
    "missing layer": ("conv3_1 is missing", lambda b: b.pop("conv3_1")),
    "extra layer": ("conv9_9 is in the file", lambda b: b.update(conv9_9=b["conv1_1"])),
    "transposed kernel": (
        r"conv2_1/0 has shape (3, 3, 4, 8) in the file, expected (8, 4, 3, 3)",
        lambda b: b["conv2_1"].__setitem__(0, b["conv2_1"][0].transpose(2, 3, 1, 0)),
    ),
}


@pytest.fixture(scope="module")
def hostile(folder, blobs, write_caffemodel, write_caffe_hdf5):
    """{case: (path, text of the error)}."""
    pipe = str(folder / "pipe")
    os.mkfifo(pipe)
    cases = {}
    for name, (spoil, message) in HDF5.items():
        path = write_caffe_hdf5(folder / f"{name}.h5", blobs)
        with h5py.File(path, "a") as file:
            del file["data/conv2_1/0"]
            spoil(file, pipe)
        cases[f"h5: {name}"] = path, message
    for name, (message, spoil) in CAFFEMODEL.items():
        spoiled = {layer: [array.copy() for array in both] for layer, both in blobs.items()}
        spoil(spoiled)
        for suffix, write in (("caffemodel", write_caffemodel), ("h5", write_caffe_hdf5)):
            cases[f"{suffix}: {name}"] = write(folder / f"{name}.{suffix}", spoiled), message
    return cases | _cut(folder, blobs, write_caffemodel, write_caffe_hdf5) | _bombs(folder, blobs)


def _cut(folder, blobs, write_caffemodel, write_caffe_hdf5):
    """Files cut at 0, 10, 50 and 90 %; only a .caffemodel still has names then."""
    arrays = {f"{name}.{k}": a for name, both in blobs.items() for k, a in enumerate(both)}
    whole = {
        "caffemodel": write_caffemodel(folder / "whole.caffemodel", blobs),
        "h5": write_caffe_hdf5(folder / "whole.h5", blobs),
        "npz": folder / "whole.npz",
    }
    np.savez(whole["npz"], **arrays)
    cases = {}
    for suffix, path in whole.items():
        content = path.read_bytes()
        for percent in (0, 10, 50, 90):
            cut = folder / f"cut at {percent}.{suffix}"
            cut.write_bytes(content[: len(content) * percent // 100])
            layer = {0: "empty", 10: "'conv2_1'", 50: "'conv3_1'", 90: "'conv3_1'"}[percent]
            expected = layer if suffix == "caffemodel" or percent == 0 else "cannot be read"
            cases[f"{suffix}: cut at {percent} %"] = cut, expected
    return cases


def _bombs(folder, blobs):
    """Shapes that no file of their size can hold, each below 1 kB."""
    npz = folder / "bomb.npz"
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,)}\n"
    with zipfile.ZipFile(npz, "w") as file:
        file.writestr("conv2_1.0.npy", b"\x93NUMPY\x01\x00" + bytes([len(header), 0]) + header)
    with h5py.File(folder / "tiny.h5", "w", libver="latest") as file:
        file.create_dataset("data/conv2_1/0", (2**20, 2**20), "f4")
    dims = b"\x3a\x0c\x0a\x0a" + b"\xff\xff\xff\xff\x07" * 2 + b"\x2a\x04abcd"
    layer = b"\x0a\x07conv2_1\x3a" + bytes([len(dims)]) + dims
    model = folder / "bomb.caffemodel"
    model.write_bytes(b"\xa2\x06" + bytes([len(layer)]) + layer)
    assert all(path.stat().st_size < 1024 for path in (npz, model, folder / "tiny.h5"))
    return {
        "npz: shape bomb": (
            npz,
            "conv2_1.0.npy has shape (99999999999999,) of float32 but 0 bytes",
        ),
        "h5: shape bomb below 1 kB": (folder / "tiny.h5", "conv2_1/0 promises"),
        "caffemodel: shape bomb": (model, "conv2_1/0: shape (2147483647, 2147483647)"),
    }


def test_hostile_files_are_rejected(hostile):
    paths = json.dumps([str(path) for path, _ in hostile.values()])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, paths],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    for case, (path, message) in hostile.items():
        result = report["results"][str(path)]
        assert result["error"] is not None, f"{case}: was loaded"
        assert str(path) in result["error"] and message in result["error"], f"{case}: {result}"
        assert result["seconds"] < 1, f"{case}: {result}"
        assert result["mib"] < 64, f"{case}: {result}"
        assert not result["opened"], f"{case}: {result}"
    assert report["unchanged"]
