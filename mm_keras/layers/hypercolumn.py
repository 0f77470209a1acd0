"""Hypercolumns, sparse and dense, and the interpolation of feature maps."""

import keras
from keras import ops


def cell_weights(positions, stride, length):
    """Return lower cell, upper cell and the upper cell's weight for positions on one axis.

    Cell k of a map of stride S lies exactly on image pixel k * S, without a half-pixel shift.
    Positions past the last cell are clamped to length - 1.0001 (released
    sparse_hypercolumn_extractor_layer.cpp). In a map of one cell, that cell is both neighbors.

    Args:
        positions: number tensor [...], in image pixels.
        stride: image pixels per cell.
        length: number of cells of the map on this axis.

    Returns:
        int32 [...], int32 [...], float32 [...] in 0..1.
    """
    longest = ops.maximum(ops.cast(length, "float32") - 1.0001, 0.0)
    cell = ops.clip(ops.cast(positions, "float32") / stride, 0.0, longest)
    lower = ops.floor(cell)
    upper = ops.minimum(ops.cast(lower, "int32") + 1, ops.cast(length, "int32") - 1)
    return ops.cast(lower, "int32"), upper, cell - lower


def gather_points(features, points, stride):
    """Return bilinear samples of a feature map at image points.

    Args:
        features: float tensor [B, h, w, C] of stride `stride`.
        points: integer or float tensor [B, P, 2] of (y, x) in image pixels.
        stride: image pixels per cell.

    Returns:
        [B, P, C] in the dtype of `features`.
    """
    batch, height, width, channels = ops.shape(features)
    y0, y1, wy = cell_weights(points[..., 0], stride, height)
    x0, x1, wx = cell_weights(points[..., 1], stride, width)
    first = ops.arange(batch, dtype="int32")[:, None] * (height * width)
    corners = [first + y * width + x for y in (y0, y1) for x in (x0, x1)]
    weights = [a * b for a in (1 - wy, wy) for b in (1 - wx, wx)]
    cells = ops.take(
        ops.reshape(features, (-1, channels)), ops.stack(corners, axis=-1), axis=0
    )  # [B, P, 4, C]
    weights = ops.cast(ops.stack(weights, axis=-1), features.dtype)
    return ops.sum(cells * weights[..., None], axis=-2)


def interpolate(features, positions, stride, axis):
    """Return bilinear samples along one axis of a feature map.

    Args:
        features: float tensor [B, h, w, C] of stride `stride`.
        positions: number tensor [n], in image pixels.
        stride: image pixels per cell.
        axis: 1 (rows) or 2 (columns).
    """
    lower, upper, weight = cell_weights(positions, stride, ops.shape(features)[axis])
    weight = ops.cast(weight, features.dtype)
    weight = weight[:, None, None] if axis == 1 else weight[:, None]
    low = ops.take(features, lower, axis=axis)
    high = ops.take(features, upper, axis=axis)
    return low + (high - low) * weight


def interpolation_matrix(positions, stride, length):
    """Return the weights of `interpolate` as a matrix, float32 [n, length].

    A row mixes one or two cells.

    Args:
        positions: number tensor [n], in image pixels.
        stride: image pixels per cell.
        length: number of cells of the map on this axis.
    """
    lower, upper, weight = cell_weights(positions, stride, length)
    cells = ops.arange(length, dtype="int32")
    below, above = (ops.cast(x[:, None] == cells, "float32") for x in (lower, upper))
    return below * (1 - weight)[:, None] + above * weight[:, None]


def upsample(features, stride, size):
    """Interpolate maps [B, h, w, C] of a stride at every pixel of an image of (height, width)."""
    rows = interpolate(features, ops.arange(size[0]), stride, axis=1)
    return interpolate(rows, ops.arange(size[1]), stride, axis=2)


def resize_aligned(features, size):
    """Resize maps bilinearly with aligned corners: corner cells lie on corner pixels.

    Output row y reads the map at y * (h - 1) / (height - 1), a single row at 0. Columns follow the
    same rule (caffe/src/caffe/util/interp.cpp of the released code). The function uses two small
    matrix products, so its gradient is two products as well.

    Args:
        features: float tensor [B, h, w, C].
        size: (height, width) of the result, integers or integer tensors.

    Returns:
        [B, height, width, C] in the dtype of `features`.

    Example:

    >>> row = ops.reshape(ops.convert_to_tensor([0.0, 4.0]), (1, 1, 2, 1))
    >>> print(ops.convert_to_numpy(resize_aligned(row, (1, 5)))[0, 0, :, 0])
    [0. 1. 2. 3. 4.]
    """
    _, height, width, channels = ops.shape(features)
    rows, columns = (
        ops.cast(_aligned_weights(cells, pixels), features.dtype)
        for cells, pixels in ((height, size[0]), (width, size[1]))
    )
    tall = ops.matmul(rows, ops.reshape(features, (-1, height, width * channels)))
    return ops.matmul(columns, ops.reshape(tall, (-1, size[0], width, channels)))


def _aligned_weights(num_cells, num_pixels):
    """Return the weight of each cell at each pixel of one axis, float32 [pixels, cells]."""
    last_cell, last_pixel = (ops.cast(number - 1, "float32") for number in (num_cells, num_pixels))
    pixels, cells = (ops.arange(n, dtype="float32") for n in (num_pixels, num_cells))
    places = pixels * last_cell / ops.maximum(last_pixel, 1.0)
    return ops.relu(1 - ops.abs(places[:, None] - cells))


def _shifted(positions, offset):
    """Return image positions relative to the middle of a first cell."""
    return ops.cast(positions, "float32") - offset if offset else positions


@keras.saving.register_keras_serializable("mm_keras")
class Hypercolumn(keras.layers.Layer):
    """Apply one linear map to the hypercolumn of a pixel, stored as one kernel per tap.

    The hypercolumn of a pixel is the concatenation of all taps, sampled bilinearly at that pixel
    (14,467 channels for VGG-16). Sampling and a linear map commute, so nothing is concatenated. At
    sparse points, each tap is gathered, then multiplied by its own kernel. In dense maps, coarse
    taps are multiplied at their own resolution and then interpolated, taps of one stride together.

    Args:
        taps: sequence of (name, stride, channels); stride in image pixels per cell.
        units: length of the result, 1024 in the released ip_column layer.
        stddev: standard deviation of the Gaussian initializer of the kernels, 1e-4 in the released
            ip_column layer. The bias starts at 0.
        offsets: {tap name: image pixel of the middle of its first cell}, 0 for all others.

    Example:

    >>> layer = Hypercolumn([("fine", 1, 3), ("coarse", 8, 5)], units=16)
    >>> maps = {"fine": ops.ones((1, 32, 32, 3)), "coarse": ops.ones((1, 4, 4, 5))}
    >>> layer.build()
    >>> tuple(layer(maps, ops.zeros((1, 7, 2), "int32")).shape)
    (1, 7, 16)
    """

    def __init__(self, taps, units, stddev=1e-4, offsets=None, **kwargs):
        super().__init__(**kwargs)
        self.taps = tuple(
            (str(name), int(stride), int(channels)) for name, stride, channels in taps
        )
        self.units = units
        self.stddev = stddev
        self.offsets = {name: float(offset) for name, offset in (offsets or {}).items() if offset}

    def build(self, input_shape=None):
        initializer = keras.initializers.RandomNormal
        self.kernels = {
            name: self.add_weight(
                name=f"{name}_kernel",
                shape=(channels, self.units),
                initializer=initializer(stddev=self.stddev),
            )
            for name, _, channels in self.taps
        }
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")
        self.built = True

    def call(self, maps, points):
        """Return linear responses at sparse points.

        Args:
            maps: {tap name: float [B, h, w, C]}.
            points: int32 [B, P, 2] of (y, x) in image pixels.

        Returns:
            [B, P, units], before any activation.
        """
        responses = [
            ops.matmul(
                gather_points(maps[name], self._places(name, points), stride), self.kernels[name]
            )
            for name, stride, _ in self.taps
        ]
        return sum(responses) + self.bias

    def _places(self, name, positions):
        return _shifted(positions, self.offsets.get(name, 0))

    def prepare(self, maps, size, output_stride):
        """Compute the values that all rows of a dense map share.

        Args:
            maps: {tap name: float [B, h, w, C]}.
            size: (height, width) of the output in cells.
            output_stride: image pixels per output cell.

        Returns:
            (fine, coarse, columns, num_rows). fine: [B, h', w', sum of C], the taps that are at
            least as dense as the output, sampled at the output's cells; None without such a tap.
            coarse: {(stride, offset): [B, h, w, units]}, the projected sum of the taps of each
            larger stride and offset.
            columns: [w', sum of w], the weights of the columns of all coarse maps, side by side,
            for each output column.
        """
        fine, coarse = [], {}
        rows, columns = (ops.arange(length, dtype="int32") * output_stride for length in size)
        for name, stride, _ in self.taps:
            if stride <= output_stride:
                sampled = interpolate(maps[name], self._places(name, rows), stride, axis=1)
                fine.append(interpolate(sampled, self._places(name, columns), stride, axis=2))
            else:
                response = ops.matmul(maps[name], self.kernels[name])
                key = stride, self.offsets.get(name, 0)
                coarse[key] = coarse[key] + response if key in coarse else response
        matrices = [
            ops.cast(
                interpolation_matrix(_shifted(columns, offset), stride, ops.shape(response)[2]),
                response.dtype,
            )
            for (stride, offset), response in coarse.items()
        ]
        return (
            ops.concatenate(fine, axis=-1) if fine else None,
            coarse,
            ops.concatenate(matrices, axis=1) if matrices else None,
            size[0],
        )

    def rows(self, prepared, rows, output_stride):
        """Return linear responses of some output rows.

        The rows of all coarse maps are interpolated first, then all their columns in one dense
        matrix product. Up to widths of thousands of pixels, it costs a fraction of separate passes
        over [R, w', units].

        Args:
            prepared: the result of `prepare`.
            rows: int32 [R], indices of output rows. Past the last row, the last row is repeated.
            output_stride: image pixels per output cell.

        Returns:
            [B, R, w', units], before any activation.
        """
        fine, coarse, columns, num_rows = prepared
        rows = ops.minimum(rows, num_rows - 1)
        total = []
        if fine is not None:
            names = [name for name, stride, _ in self.taps if stride <= output_stride]
            kernel = ops.concatenate([self.kernels[name] for name in names], axis=0)
            total.append(ops.matmul(ops.take(fine, rows, axis=1), kernel))
        if coarse:
            bands = [
                interpolate(response, _shifted(rows * output_stride, offset), stride, axis=1)
                for (stride, offset), response in coarse.items()
            ]
            total.append(ops.matmul(columns, ops.concatenate(bands, axis=2)))
        return sum(total) + self.bias

    def get_config(self):
        return {
            **super().get_config(),
            "taps": self.taps,
            "units": self.units,
            "stddev": self.stddev,
            "offsets": self.offsets,
        }
