"""Each test protocol against plain numpy, on a network whose answer is a formula."""

import math
import types

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from mm_keras import inference
from mm_keras.inference import protocols

PAD = (122, 116, 104)
SIZES = [(1, 1), (3, 700), (37, 51), (512, 512), (513, 300), (600, 790)]


class FormulaModel:
    """Logits that depend on the pixels, on their place in the window and on the window's mean."""

    def __init__(self, stride=2, num_classes=3, pad_color=PAD):
        self.output_stride, self.num_classes = stride, num_classes
        spec = types.SimpleNamespace(name="formula", pad_color=pad_color, min_size=1, num_bands=3)
        self.backbone = types.SimpleNamespace(spec=spec)
        self.variables = []

    def __call__(self, pixels, training):
        assert training is False
        return formula(tf, pixels, self.output_stride, self.num_classes)


def formula(xp, pixels, stride, num_classes):
    """The model's logits with numpy or TensorFlow functions alike."""
    mean = (xp.mean if xp is np else xp.reduce_mean)(pixels, (1, 2, 3), keepdims=True)
    gray = pixels[:, ::stride, ::stride, :1] / 64 - pixels[:, ::stride, ::stride, 2:] / 128
    columns = xp.cast(xp.range(xp.shape(gray)[2]), "float32") if xp is tf else None
    columns = np.arange(gray.shape[2], dtype="float32") if xp is np else columns
    place = xp.sin(columns / 9)[None, None, :, None]
    logits = [k * gray + (k % 2) * place + mean / 99 / (k + 1) for k in range(num_classes)]
    return (np.concatenate if xp is np else tf.concat)(logits, -1)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def network_oracle(pixels, stride=2, num_classes=3):
    return softmax(formula(np, np.asarray(pixels, "float32")[None], stride, num_classes))[0]


def bilinear(values, size):
    """[h, w, C] -> [*size, C], half-pixel centers, the border repeated, in plain numpy."""
    for axis in (0, 1):
        length = values.shape[axis]
        place = (np.arange(size[axis]) + 0.5) * length / size[axis] - 0.5
        low = np.floor(place).astype(int)
        shape = [-1 if k == axis else 1 for k in range(3)]
        weight = (place - low).reshape(shape)
        lower, upper = (np.clip(low + k, 0, length - 1) for k in (0, 1))
        values = values.take(lower, axis) * (1 - weight) + values.take(upper, axis) * weight
    return values


def native_oracle(pixels, stride=2):
    height, width, _ = pixels.shape
    cells = network_oracle(pixels, stride)
    answer = np.zeros((height, width, cells.shape[-1]))
    for y in range(height):
        for x in range(width):
            corners = []
            for place, length in ((y / stride, cells.shape[0]), (x / stride, cells.shape[1])):
                place = min(place, max(length - 1.0001, 0))
                low = int(place)
                corners.append(((low, 1 - place + low), (min(low + 1, length - 1), place - low)))
            answer[y, x] = sum(
                wy * wx * cells[i, j] for i, wy in corners[0] for j, wx in corners[1]
            )
    return answer


def cityscapes_oracle(pixels, stride=2):
    """Sums over windows, then divides by how many there were at each pixel."""
    height, width, _ = pixels.shape
    rows, columns = (max(0, math.ceil((n - 512) / 256)) + 1 for n in (height, width))
    total, count = np.zeros((2, 256 * (rows + 1), 256 * (columns + 1), 3))
    for i in range(rows):
        for j in range(columns):
            window = np.empty((512, 512, 3))
            window[:] = PAD
            part = pixels[256 * i : 256 * i + 512, 256 * j : 256 * j + 512]
            window[: part.shape[0], : part.shape[1]] = part
            place = np.s_[256 * i : 256 * i + 512, 256 * j : 256 * j + 512]
            total[place] += bilinear(network_oracle(window, stride), (512, 512))
            count[place] += 1
    return (total / count)[:height, :width]


def pascal_oracle(pixels, stride=2):
    height, width, _ = pixels.shape
    ratio = height / width
    placed = (512, int(512 / ratio)) if ratio > 1 else (int(512 * ratio), 512)
    placed = [max(1, length) for length in placed]
    top, left = ((512 - length) // 2 for length in placed)
    canvas = np.empty((512, 512, 3))
    canvas[:] = PAD
    resized = np.round(bilinear(pixels, placed))
    canvas[top : top + placed[0], left : left + placed[1]] = resized
    cells = network_oracle(canvas, stride)
    m = len(cells)
    part = (m, int(m / ratio)) if ratio > 1 else (int(m * ratio), m)
    part = [max(1, length) for length in part]
    rows, columns = (
        (m - part[axis]) // 2 + np.arange(pixels.shape[axis]) * part[axis] // pixels.shape[axis]
        for axis in (0, 1)
    )
    return cells[rows][:, columns]


ORACLES = {"native": native_oracle, "cityscapes": cityscapes_oracle, "pascal": pascal_oracle}


def image(height, width, seed=0):
    """uint8 [H, W, 3], smooth enough that rounding at the canvas hides nothing."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3))
    return coarse.repeat(16, 0).repeat(16, 1)[:height, :width].astype("uint8")


def predict(pixels, **arguments):
    stride = arguments.pop("stride", 2)
    predictor = inference.Predictor(FormulaModel(stride), **arguments)
    return predictor.probabilities(np.asarray(pixels)[None])[0].numpy()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("protocol", ["pascal", "cityscapes"])
def test_protocol_equals_plain_numpy(protocol, size, stride):
    pixels = image(*size)
    expected = ORACLES[protocol](pixels.astype("float64"), stride)
    found = predict(pixels, protocol=protocol, stride=stride)
    assert found.shape == (*size, 3)
    # Float32 may round a pixel of the canvas to the other side of a half: one gray level.
    close = np.isclose(found, expected, atol=2e-5).all(-1)
    assert close.mean() > (0.99 if protocol == "pascal" else 0.999999)
    np.testing.assert_allclose(found, expected, atol=2e-2)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (37, 51)])
def test_native_equals_plain_numpy(size, stride):
    pixels = image(*size)
    found = predict(pixels, stride=stride)
    np.testing.assert_allclose(found, native_oracle(pixels, stride), atol=2e-5)


def test_a_batch_is_predicted_image_by_image():
    pixels = np.stack([image(520, 70, seed) for seed in (1, 2)])
    predictor = inference.Predictor(FormulaModel(), protocol="cityscapes")
    both = predictor.probabilities(pixels).numpy()
    for found, single in zip(both, pixels, strict=True):
        np.testing.assert_allclose(found, cityscapes_oracle(single.astype("float64")), atol=2e-5)


def test_cityscapes_images_have_the_published_windows(golden):
    windows = golden("cityscapes_protocol")
    grid = protocols.window_grid(tf.constant([1024, 2048])).numpy().tolist()
    assert grid == [windows["rows"], windows["cols"]]
    assert windows["stride"] == protocols.WINDOW_STEP


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, 1), (511, 1), (512, 1), (513, 2), (768, 2), (769, 3), (1024, 3), (1025, 4)],
)
def test_windows_cover_every_pixel_and_each_is_needed(length, expected):
    (num_windows, _) = protocols.window_grid(tf.constant([length, length])).numpy()
    assert num_windows == expected
    starts = 256 * np.arange(num_windows)
    covering = [(starts <= y) & (y < starts + 512) for y in range(length)]
    assert all(at.any() for at in covering)
    assert num_windows == 1 or starts[-1] + 256 < length  # the last one sees something new
    counts = protocols._num_windows_at(length, int(num_windows)).numpy()
    np.testing.assert_array_equal(counts, np.sum(covering, axis=1))


@pytest.mark.parametrize("protocol", ORACLES)
def test_flip_is_the_mean_with_the_mirrored_image_mirrored_back(protocol):
    pixels = image(90, 131)
    mirrored = predict(pixels[:, ::-1], protocol=protocol)[:, ::-1]
    expected = (predict(pixels, protocol=protocol) + mirrored) / 2
    found = predict(pixels, protocol=protocol, flip=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(mirrored - expected).max() > 0.01  # the network distinguishes left and right
    again = predict(pixels[:, ::-1], protocol=protocol, flip=True)
    np.testing.assert_allclose(again[:, ::-1], found, atol=1e-6)


@pytest.mark.parametrize("protocol", ["native", "cityscapes"])
def test_scales_are_averaged_at_the_pixels_of_the_image(protocol):
    pixels = image(48, 75)
    double = bilinear(pixels.astype("float64"), (96, 150))
    larger = bilinear(ORACLES[protocol](double), (48, 75))
    expected = (ORACLES[protocol](pixels.astype("float64")) + larger) / 2
    found = predict(pixels, protocol=protocol, scales=(1, 2.0))
    np.testing.assert_allclose(found, expected, atol=5e-5)
    single = predict(pixels, protocol=protocol)
    np.testing.assert_allclose(predict(pixels, protocol=protocol, scales=[1.0]), single)
    assert np.abs(single - found).max() > 0.01


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"flip": True, "scales": (1, 0.5)},
        {"protocol": "pascal", "flip": True},
        {"protocol": "cityscapes"},
        pytest.param(
            {"protocol": "cityscapes", "flip": True, "scales": (0.5, 1)}, marks=pytest.mark.slow
        ),
    ],
)
def test_saved_and_live_predictions_are_equal(tmp_path, arguments):
    predictor = inference.Predictor([FormulaModel(2), FormulaModel(1, 3, (0, 0, 0))], **arguments)
    predictor.export(tmp_path / "model")
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serve_probabilities"]
    for size in ((1, 1), (37, 51), (520, 300)):
        pixels = tf.constant(image(*size)[None])
        served, live = serve(images=pixels)["probabilities"], predictor.probabilities(pixels)
        np.testing.assert_allclose(served, live, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "shorter_side", "scale", "expected"),
    [
        ((40, 60), 20, 1, (20, 30)),
        ((15, 60), 20, 1, (15, 60)),
        ((40, 60), None, 0.75, (30, 45)),
        ((40, 60), 20, 0.75, (15, 22)),
        ((1, 9), None, 0.25, (1, 2)),
        ((375, 500), 180, 1, (180, 240)),
    ],
)
def test_the_input_size_follows_shorter_side_and_scale(size, shorter_side, scale, expected):
    network = protocols.Network(FormulaModel(), shorter_side)
    assert tuple(network.input_size(tf.constant(size), scale).numpy()) == expected


def test_each_model_has_its_own_size_stride_and_pad_color():
    models = [FormulaModel(1), FormulaModel(2, pad_color=(0, 0, 0))]
    pixels = image(40, 60)
    both = inference.Predictor(models, shorter_side=(20, None)).probabilities(pixels[None])[0]
    single = [
        inference.Predictor(model, shorter_side=side).probabilities(pixels[None])[0].numpy()
        for model, side in zip(models, (20, None), strict=True)
    ]
    np.testing.assert_allclose(both, np.mean(single, axis=0), atol=1e-6)
    padded = inference.Predictor(models, "cityscapes").probabilities(pixels[None])[0]
    single = [
        inference.Predictor(model, "cityscapes").probabilities(pixels[None])[0].numpy()
        for model in models
    ]
    np.testing.assert_allclose(padded, np.mean(single, axis=0), atol=1e-6)
    assert np.abs(single[0] - single[1]).max() > 0.01


def _picks(part, indices):
    return (
        indices[:5] == part["first5"]
        and indices[-5:] == part["last5"]
        and sum(indices) == part["sum"]
    )


@pytest.mark.parametrize("case", range(9))
def test_the_pascal_canvas_has_the_released_geometry(golden, case):
    case = golden("pascal_protocol")[case]
    size = [case["h"], case["w"]]
    offset, placed = (part.numpy().tolist() for part in protocols.centered(tf.constant(size), 512))
    assert offset == [case["pad"]["top"], case["pad"]["left"]]
    assert placed == [case["pad"]["new_rows"], case["pad"]["new_cols"]]
    for side in (256, 512):
        rows, columns = np.mgrid[0:side, 0:side].astype("float32")
        cells = np.stack([rows, columns], -1)[None]
        taken = protocols.from_canvas(cells, tf.constant(size))[0].numpy().astype(int)
        assert _picks(case[f"nearest_rows_from_{side}"], taken[:, 0, 0].tolist())
        assert _picks(case[f"nearest_cols_from_{side}"], taken[0, :, 1].tolist())


def test_pascal_canvas_is_the_resized_image_in_the_pad_color():
    pixels = image(300, 400)
    canvas = protocols.on_canvas(pixels[None].astype("float32"), PAD)[0].numpy()
    assert canvas.shape == (512, 512, 3)
    np.testing.assert_array_equal(canvas[0, 0], PAD)
    np.testing.assert_array_equal(canvas[448:], np.broadcast_to(PAD, (64, 512, 3)))
    theirs = PIL.Image.fromarray(pixels).resize((512, 384), PIL.Image.Resampling.BILINEAR)
    np.testing.assert_allclose(canvas[64:448], np.asarray(theirs), atol=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "voc"}, "Unknown protocol 'voc'; expected one of native, pascal, cityscapes"),
        ({"protocol": "pascal", "shorter_side": 9}, "fixes its own size.*protocol 'native'"),
        ({"protocol": "cityscapes", "shorter_side": 9}, "fixes its own size"),
        ({"shorter_side": 0}, "at least 1 pixel. Received 0"),
        ({"shorter_side": (9, 9)}, "Received 2 values for 1 models"),
        ({"protocol": "pascal", "scales": (1, 2)}, r"scales=\[1, 2\]. Use protocol 'native'"),
        ({"scales": ()}, r"one or more positive numbers. Received \[\]"),
        ({"scales": (1, 0)}, r"positive numbers. Received \[1, 0\]"),
        ({"scales": (math.inf,)}, "positive numbers"),
        ({"scales": (math.nan,)}, "positive numbers"),
    ],
)
def test_unsupported_arguments_of_a_protocol_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        inference.Predictor(FormulaModel(), **arguments)
