"""Images and masks whose files Pillow or TensorFlow would convert without a word."""

import os
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps, TiffImagePlugin

from pipelines import datasets
from pipelines.datasets import image_mask_pairs
from pipelines.datasets.spec import PixelWindow

SIZE = (24, 32)


def write_tiff(file, values, photometric=1, extra=None, nodata=None, orientation=None):
    """Write [height, width, bands] of any type as an uncompressed TIFF, as remote sensing does."""
    values = np.atleast_3d(values)
    height, width, bands = values.shape
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    content = values.astype(values.dtype.newbyteorder("<")).tobytes()
    number = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags[256], tags[257], tags[258] = width, height, (8 * values.dtype.itemsize,) * bands
    tags[259], tags[262], tags[273], tags[277] = 1, photometric, 0, bands
    tags[278], tags[279], tags[339] = height, len(content), (number,) * bands
    tags.tagtype[273] = tags.tagtype[279] = 4  # LONG
    if extra is not None:
        tags[338] = extra
    if nodata is not None:
        tags[42113] = nodata
    if orientation is not None:
        tags[274] = orientation
    # Pillow adds the end of the directory to the place of the pixels.
    file.write_bytes(b"II*\0" + struct.pack("<I", 8) + tags.tobytes(8) + content)


def noise(*shape, dtype=np.uint8, high=256):
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def fails(root, *parts):
    with pytest.raises(datasets.DatasetError) as caught:
        datasets.load("folder", root)
    for part in parts:
        assert str(part) in str(caught.value)
    return str(caught.value)


def replace_image(folder, write, ending=".tif"):
    """Write another image in place of a.jpg and return its path."""
    (folder / "images" / "train" / "a.jpg").unlink()
    file = folder / "images" / "train" / f"a{ending}"
    write(file)
    return file


# Bits and bands


@pytest.mark.parametrize(
    ("write", "described"),
    [
        (
            lambda f: write_tiff(f, noise(*SIZE, 3, dtype=np.uint16, high=1700), 2),
            "3 bands of uint16",
        ),
        (lambda f: write_tiff(f, noise(*SIZE, dtype=np.uint16, high=1700)), "1 band of uint16"),
        (lambda f: write_tiff(f, noise(*SIZE, 3, dtype=np.float32), 2), "3 bands of float32"),
        (lambda f: write_tiff(f, noise(*SIZE, dtype=np.float32)), "1 band of float32"),
        (lambda f: write_tiff(f, noise(*SIZE, dtype=np.int16)), "1 band of int16"),
        (lambda f: write_tiff(f, noise(*SIZE, 2, dtype=np.uint16), extra=2), "2 bands of uint16"),
    ],
)
def test_images_of_more_than_8_bits_are_refused_whatever_the_container(folder, write, described):
    for ending in (".tif", ".png"):
        file = folder / "images" / "train" / f"a{ending}"
        (folder / "images" / "train" / "a.jpg").unlink(missing_ok=True)
        write(file)
        fails(folder, "1 x image with more than 8 bits per value", f"{file} ({described})")
        file.unlink()


@pytest.mark.parametrize(
    ("bands", "photometric", "extra", "described"),
    [
        (6, 1, (0,) * 5, "6 bands of uint8"),
        (6, 2, (0,) * 3, "6 bands of uint8"),
        (4, 2, (0,), "4 bands of uint8"),
        (2, 1, (0,), "2 bands of uint8"),
        (5, 2, (2, 0), "5 bands of uint8"),
    ],
)
def test_bands_that_are_no_color_are_refused_and_named(
    folder, bands, photometric, extra, described
):
    values = noise(*SIZE, bands)
    file = replace_image(folder, lambda f: write_tiff(f, values, photometric, extra))
    message = fails(folder, "bands other than gray, color and alpha", f"{file} ({described})")
    assert "max_unreadable" not in message


def test_an_image_of_three_pages_is_refused_with_its_bands(folder):
    pages = [Image.fromarray(noise(*SIZE)) for _ in range(3)]
    file = replace_image(folder, lambda f: pages[0].save(f, save_all=True, append_images=pages[1:]))
    message = fails(folder, "of several pages", f"{file} (3 pages of 1 band of uint8)")
    assert "max_unreadable" not in message


def test_a_mask_of_two_pages_is_refused(folder):
    pages = [Image.fromarray(noise(*SIZE, high=2)) for _ in range(2)]
    (folder / "masks" / "train" / "a.png").unlink()
    pages[0].save(folder / "masks/train/a.tif", save_all=True, append_images=pages[1:])
    fails(folder, "of several pages", "a.tif (2 pages)")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "CMYK", "P", "1"])
def test_usual_modes_are_read_as_before(folder, mode):
    image = Image.fromarray(noise(*SIZE, 3)).convert(mode)
    replace_image(folder, image.save)
    split = datasets.load("folder", folder).train
    decoded = tf.io.decode_image(tf.io.read_file(split.image_files[0]), channels=3)
    np.testing.assert_array_equal(decoded, image.convert("RGB"))


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_an_alpha_band_with_data_gives_a_message(folder, ending):
    image = Image.fromarray(noise(*SIZE, 4), "RGBA")
    file = replace_image(folder, image.save, ending)
    for _ in range(2):  # the second load reads the cache
        (message,) = datasets.load("folder", folder).messages
        assert "1 x image with an alpha band that is not opaque" in message and str(file) in message
    image.putalpha(255)
    image.save(file)
    assert not any("alpha band that" in line for line in datasets.load("folder", folder).messages)


def test_an_image_of_too_many_pixels_is_not_called_damaged(folder, monkeypatch):
    head = struct.pack(">IIBBBBB", 14_000, 13_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    png += struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\0IDAT" + struct.pack(">I", 0x35AF061E)
    file = replace_image(folder, lambda f: f.write_bytes(png), ".png")
    message = fails(folder, "more than 178,956,970 pixels", f"{file} (13000x14000)", "tiles")
    assert "damaged" not in message


def test_a_tiff_of_too_many_pixels_is_refused_before_decoding(folder):
    file = replace_image(folder, lambda f: Image.fromarray(noise(*SIZE)).save(f))
    content = file.read_bytes()
    wide = content.replace(
        struct.pack("<HHII", 256, 4, 1, 32), struct.pack("<HHII", 256, 4, 1, 10**7)
    )
    assert wide != content
    file.write_bytes(wide)
    fails(folder, "more than 178,956,970 pixels", f"{file} (24x10000000)")


# Turned images


def turned(folder, orientation, size=(24, 32), ending=".png"):
    """Write an image whose EXIF data turn it; return it (stored, upright)."""
    image, exif = Image.fromarray(noise(*size, 3)), Image.Exif()
    exif[0x0112] = orientation
    file = replace_image(folder, lambda f: image.save(f, exif=exif), ending)
    with Image.open(file) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    return np.asarray(image), np.asarray(upright)


def write_mask(folder, size):
    Image.fromarray(noise(*size, high=2)).save(folder / "masks" / "train" / "a.png")


def first_image(folder):
    """Return the first training image as training and as evaluation read it."""
    data = datasets.load("folder", folder)
    file = tf.io.decode_image(tf.io.read_file(data.train.image_files[0]), channels=3).numpy()
    record = next(iter(datasets.examples(data.train)))["image"].numpy()
    np.testing.assert_array_equal(file, record)
    return file, data.messages


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_by_exif_data_where_the_upright_image_fits(folder, orientation, ending):
    stored, upright = turned(folder, orientation, ending=ending)
    write_mask(folder, upright.shape[:2])
    pixels, messages = first_image(folder)
    np.testing.assert_array_equal(pixels, upright)
    if orientation > 1:
        assert "1 images were turned by their EXIF data" in messages[0]
    if orientation in (2, 3, 4):
        assert "mask fits the stored pixels as well" in messages[1]
    if orientation == 1:
        assert messages == ()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_of_16_bits_and_four_bands_are_turned_with_their_nodata(tmp_path, orientation):
    values = noise(6, 9, 4, dtype=np.uint16, high=255) + 1
    values[1:3, :2] = 0
    write_tiff(tmp_path / "a.tif", values, extra=(0, 0, 0), nodata="0", orientation=orientation)
    window = PixelWindow(4, (0, 1, 2, 3), (0.0,) * 4, (255.0,) * 4)
    image = image_mask_pairs.read_image(tmp_path / "a.tif", window=window)
    assert image.orientation == orientation
    upright = image.turned() if orientation > 1 else image
    for band in range(4):
        stored, exif = Image.fromarray(values[..., band].astype("uint8")), Image.Exif()
        exif[0x0112] = orientation
        stored.info["exif"] = exif.tobytes()
        expected = np.asarray(ImageOps.exif_transpose(stored))
        np.testing.assert_array_equal(upright.pixels[..., band], expected)
    np.testing.assert_array_equal(upright.is_nodata, expected == 0)
    assert upright.pixels.shape[:2] == image.upright_size


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_images_are_not_turned_where_only_the_stored_image_fits(folder, orientation, ending):
    stored, _ = turned(folder, orientation, ending=ending)
    write_mask(folder, stored.shape[:2])
    pixels, messages = first_image(folder)
    np.testing.assert_array_equal(pixels, stored)
    assert len(messages) == 1 and "fits only the stored pixels" in messages[0]


def test_turned_images_without_masks_give_a_message(folder):
    image, exif = Image.fromarray(noise(*SIZE, 3)), Image.Exif()
    exif[0x0112] = 6
    (folder / "images" / "test").mkdir()
    image.save(folder / "images" / "test" / "x.jpg", exif=exif)
    data = datasets.load("folder", folder, eval_split="test")
    assert any("1 images were turned by their EXIF data" in line for line in data.messages)
    with Image.open(data.eval.image_files[0]) as shown:
        assert shown.size == SIZE


@pytest.mark.parametrize("orientation", [6, 8])
def test_square_turned_images_give_a_message_and_the_advice_works(folder, orientation):
    _, upright = turned(folder, orientation, (32, 32))
    write_mask(folder, (32, 32))
    pixels, messages = first_image(folder)
    np.testing.assert_array_equal(pixels, upright)
    assert "1 x image that its EXIF data turn or mirror" in messages[1]
    Image.fromarray(upright).save(folder / "images" / "train" / "a.png")
    pixels, messages = first_image(folder)
    np.testing.assert_array_equal(pixels, upright)
    assert not any("EXIF data" in line for line in messages)


# Masks


def label_of(folder):
    with Image.open(datasets.load("folder", folder).train.label_files[0]) as label:
        return np.asarray(label)


@pytest.mark.parametrize(
    "options",
    [
        {"ending": ".tif", "compression": "jpeg"},
        {"ending": ".png", "format": "WEBP", "quality": 80},
        {"ending": ".tif", "format": "JPEG"},
        {"ending": ".bmp", "format": "AVIF"},
    ],
)
def test_lossy_masks_are_refused_by_their_compression(folder, options):
    mask = folder / "masks" / "train" / "a.png"
    image = Image.open(mask).convert("L")
    image.load()
    mask.unlink()
    image.save(mask.with_suffix(options.pop("ending")), **options)
    fails(folder, "mask with lossy compression", "as PNG")


def test_a_lossless_webp_mask_is_read(folder):
    mask = folder / "masks" / "train" / "a.png"
    values = np.asarray(Image.open(mask))
    Image.fromarray(values).convert("RGB").save(mask, format="WEBP", lossless=True)
    np.testing.assert_array_equal(label_of(folder), values)


@pytest.mark.parametrize(
    ("nodata", "dtype"), [(-9999, np.int16), (65535, np.uint16), (-9999, np.int32), (254, np.uint8)]
)
def test_the_value_without_data_of_a_geotiff_is_void(folder, nodata, dtype):
    values = noise(*SIZE, dtype=dtype, high=2)
    values[3, :7] = nodata
    (folder / "masks" / "train" / "a.png").unlink()
    file = folder / "masks" / "train" / "a.tif"
    write_tiff(file, values, nodata=str(nodata))
    label = label_of(folder)
    np.testing.assert_array_equal(label, np.where(values == nodata, 255, values))
    (message,) = datasets.load("folder", folder).messages
    assert f"GeoTIFF masks ({nodata}) is void" in message
    write_tiff(file, values)  # without the tag
    advice = "write 255 instead" if not 0 <= nodata < 255 else "use void_value=254"
    assert "void_value=-" not in fails(folder, f"{nodata} seen", advice)
    write_tiff(file, np.where(values == nodata, 255, values).astype(np.int32))
    np.testing.assert_array_equal(label_of(folder), label)


def test_a_class_stays_a_class_where_a_geotiff_calls_it_no_data(folder):
    values = noise(*SIZE, high=2)
    (folder / "masks" / "train" / "a.png").unlink()
    write_tiff(folder / "masks" / "train" / "a.tif", values, nodata="0")
    np.testing.assert_array_equal(label_of(folder), values)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_bits_of_low_bit_gray_masks_are_the_values(folder, bits):
    values = noise(*SIZE, high=2 if bits == 1 else 3)
    (folder / "classes.txt").write_text("ground\nthing\nstuff\n")
    shifts = np.arange(8 // bits)[::-1] * bits
    packed = (values.reshape(SIZE[0], -1, 8 // bits) << shifts).sum(-1).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], bits, 0, 0, 0, 0)
    png = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (folder / "masks" / "train" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    np.testing.assert_array_equal(label_of(folder), values)


def test_color_masks_of_16_bits_are_refused(folder):
    (folder / "masks" / "train" / "a.png").unlink()
    values = np.repeat(noise(*SIZE, 1, dtype=np.uint16, high=2), 3, 2)
    write_tiff(folder / "masks" / "train" / "a.tif", values, 2)
    fails(folder, "holds no class ids", "(3 bands of uint16)")


def with_palette(index, palette):
    mask = Image.frombytes("P", index.shape[::-1], index.astype(np.uint8).tobytes())
    mask.putpalette(palette)
    return mask


def test_masks_with_palettes_of_their_own_are_refused_or_decoded_by_color(folder):
    expected = {}
    for file in sorted(folder.glob("masks/*/*.png")):
        values = expected[file.stem] = noise(*SIZE, high=2)
        is_odd = file.stem == "d"
        colors = [9, 0, 0, 0, 9, 0] if is_odd else [0, 9, 0, 9, 0, 0]
        with_palette(1 - values if is_odd else values, colors).save(file)
    message = fails(folder, "palettes of the masks differ", "colors.txt")
    assert "a.png (0 = (0, 9, 0), 1 = (9, 0, 0)); " in message
    assert "d.png (0 = (9, 0, 0), 1 = (0, 9, 0))" in message
    (folder / "colors.txt").write_text("ground 0 9 0\nthing 9 0 1\n")  # one color is missing
    fails(folder, "palettes of the masks differ")
    (folder / "colors.txt").write_text("ground 0 9 0\nthing 9 0 0\n")
    for _ in range(2):  # the second load reads the cache
        data = datasets.load("folder", folder)
        assert "palette masks are decoded by their colors" in data.messages[0]
        for split in (data.train, data.eval):
            for name, label in zip(split.ids, split.label_files, strict=True):
                np.testing.assert_array_equal(np.asarray(Image.open(label)), expected[name])


def test_palettes_that_differ_only_in_unused_indices_are_read_by_index(folder):
    values = noise(*SIZE, high=2)
    palette = [0, 9, 0, 9, 0, 0]
    for k, file in enumerate(sorted(folder.glob("masks/*/*.png"))):
        with_palette(values, [*palette, k, k, k]).save(file)
    np.testing.assert_array_equal(label_of(folder), values)


def test_the_color_of_void_is_not_compared(folder):
    values = noise(*SIZE, high=2)
    values[0] = 255
    for k, file in enumerate(sorted(folder.glob("masks/*/*.png"))):
        with_palette(values, [0, 9, 0, 9, 0, 0, *[0] * 759, k, k, k]).save(file)
    np.testing.assert_array_equal(label_of(folder), values)


def test_a_tiff_that_pillow_cannot_read_is_named_with_its_bands(folder):
    values = noise(*SIZE, dtype=np.uint8)
    file = replace_image(folder, lambda f: write_tiff(f, values, photometric=32803))
    message = fails(folder, "a form that Pillow cannot read", f"{file} (1 band of uint8)")
    assert "damaged" not in message


def test_a_jpeg_of_12_bits_is_not_called_damaged(folder):
    file = folder / "images" / "train" / "a.jpg"
    content = bytearray(file.read_bytes())
    frame = content.index(b"\xff\xc0")
    content[frame + 4] = 12
    file.write_bytes(content)
    assert "damaged" not in fails(folder, "more than 8 bits", f"{file} (JPEG of uint12)")


def test_a_gray_palette_counts_as_gray(folder):
    values = noise(*SIZE, high=2)
    with_palette(values, [k for k in range(256) for _ in range(3)]).save(
        folder / "masks" / "train" / "a.png"
    )
    np.testing.assert_array_equal(label_of(folder), values)


# Links, special files, hostile files


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("make", ["link", "fifo", "device", "loop"])
def test_links_and_special_files_are_reported_and_never_read(folder, kind, make):
    file = next((folder / kind / "train").glob("a.*"))
    file.unlink()
    targets = {"link": "nowhere", "device": "/dev/zero", "loop": file.name}
    if make == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to(targets[make])
    reasons = {"link": "link to a missing file", "loop": "symbolic link"}
    fails(folder, "1 unreadable", file, reasons.get(make, "not a regular file"))
    data = datasets.load("folder", folder, max_unreadable=1)
    assert data.train.ids == ("b", "c")


def test_files_that_start_programs_are_not_opened(folder, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("was started"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 24\n%%EndComments\nshowpage\n"
    replace_image(folder, lambda f: f.write_bytes(eps), ".png")
    fails(folder, "1 unreadable", "not an image")
