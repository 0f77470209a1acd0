"""A real training command on an image of 12,000 x 9,000 pixels needs less than 3 GB."""

import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

SIZE = (9000, 12_000)
BOUND = 3 * 10**9
_COMMAND = ["-m", "trainers.mm", "--dataset=folder", "--preset=quick", "--stage=mm,segment"]
_COMMAND += ["--set=mm.steps=2", "--set=segment.steps=4"]


def resident(root):
    """Bytes in memory of a process and all processes below it; 0 where they have ended."""
    children, total = {}, 0
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            pages = int((folder / "statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(int(fields[1]), []).append((int(folder.name), pages))
        if int(folder.name) == root:
            total += pages
    left = [root]
    while left:
        for number, pages in children.get(left.pop(), []):
            left.append(number)
            total += pages
    return total * os.sysconf("SC_PAGE_SIZE")


def peak_of(command, environment, log):
    """Run a command and return (the largest memory of its process tree, its output)."""
    peak = 0
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.2)
    assert process.returncode == 0, log.read_text()
    return peak, log.read_text()


def write_image(root, num_bands):
    """Write one large image, JPEG for three bands and else a GeoTIFF of 16 bits, and its mask."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (SIZE[0] // 20, SIZE[1] // 20, num_bands)).astype(np.uint8)
    pixels = blocks.repeat(20, 0).repeat(20, 1)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    if num_bands == 3:
        Image.fromarray(pixels).save(root / "images" / "large.jpg")
    else:
        tifffile = pytest.importorskip("tifffile")
        options = {"photometric": "minisblack", "planarconfig": "contig", "compression": "zlib"}
        tifffile.imwrite(root / "images" / "large.tif", pixels * np.uint16(200), **options)
    mask = (pixels[..., -1] > 127).astype(np.uint8)
    Image.fromarray(mask).save(root / "masks" / "large.png")
    (root / "classes.txt").write_text("ground\nfield\n")


@pytest.mark.slow  # minutes
@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("num_bands", [3, 4])
def test_a_large_image_trains_in_3_gb(tmp_path, num_bands):
    write_image(tmp_path / "data", num_bands)
    places = [f"--data_dir={tmp_path / 'data'}", f"--workdir={tmp_path / 'run'}"]
    environment = os.environ | {"TFDS_DATA_DIR": str(tmp_path / "records")}
    peak, output = peak_of([sys.executable, *_COMMAND, *places], environment, tmp_path / "log")
    assert "1 images are large and are used as tiles" in output
    assert peak < BOUND, f"{peak / 1e9:.2f} GB"
