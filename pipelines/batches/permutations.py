"""Sets of permutations for the jigsaw proxy, far apart so that a network can distinguish them.

Permutations are integer arrays [num, 9] of 0..8; slot i of a puzzle receives grid cell perm[i],
cells counted row by row. The index of a permutation in its set is the label of a puzzle.
"""

import functools
import itertools
import math
import os
import pathlib

import numpy as np

NUM_TILES = 9
MAX_PERMUTATIONS = math.factorial(NUM_TILES)
RULES = ("mean", "minimum")

_HEADER = 2  # int32 numbers before the permutations in a file: their count, and 9
_INT = np.dtype("<i4")


class PermutationError(ValueError):
    """Permutations that cannot be used; the message names the file if there is one."""


@functools.lru_cache(maxsize=8)
def permutation_set(num_permutations: int, rule: str = "mean", seed: int = 0) -> np.ndarray:
    """Choose permutations greedily that differ in many places (Hamming distance).

    The first permutation is random. Each next one is the farthest from the chosen ones among all
    others of the 9!. If several are equally far, the first in lexicographic order is taken.

    Rule "mean" maximizes the mean distance, as in the widely used third-party code
    (select_permutations.py). The set has the statistics of the released permutations_100_max.bin:
    100 permutations have a mean distance of 8.08 and a minimum of 2.
    Rule "minimum" maximizes the distance to the nearest one, then the mean distance. 100
    permutations have the same mean and a minimum of 6.

    Args:
        num_permutations: int in 2..9!. 100 take a tenth of a second, 1000 a second.
        rule: "mean" or "minimum".
        seed: int, determines the first permutation.

    Returns:
        uint8 [num_permutations, 9], read only.

    Raises:
        PermutationError: if an argument is out of range.

    Example:
        >>> permutation_set(2, seed=1).shape
        (2, 9)
    """
    if not 2 <= num_permutations <= MAX_PERMUTATIONS:
        raise PermutationError(
            f"num_permutations must lie in 2..{MAX_PERMUTATIONS} (9!), got {num_permutations}."
        )
    if rule not in RULES:
        raise PermutationError(f"Unknown rule {rule!r}: expected one of {RULES}.")
    columns = _all_columns()
    first = np.random.default_rng(seed).integers(MAX_PERMUTATIONS)
    chosen = np.ascontiguousarray(columns[:, _greedy(columns, first, num_permutations, rule)].T)
    chosen.flags.writeable = False
    return chosen


def _all_columns():
    """Return all permutations in lexicographic order, uint8 [9, 9!], one row per place."""
    numbers = itertools.chain.from_iterable(itertools.permutations(range(NUM_TILES)))
    flat = np.fromiter(numbers, np.uint8, count=MAX_PERMUTATIONS * NUM_TILES)
    return np.ascontiguousarray(flat.reshape(MAX_PERMUTATIONS, NUM_TILES).T)


def _greedy(columns, first, num, rule):
    """Return indices of `num` permutations: `first` and the ones that `rule` adds."""
    total = np.zeros(columns.shape[1], np.int64)
    nearest = np.full(columns.shape[1], NUM_TILES, np.int64)
    chosen = [int(first)]
    while len(chosen) < num:
        distance = _distances(columns, chosen[-1])
        total += distance
        total[chosen[-1]] = np.iinfo(np.int64).min // 2  # never again
        score = total
        if rule == "minimum":
            np.minimum(nearest, distance, out=nearest)
            score = nearest * (NUM_TILES * num) + total  # total < 9 num only breaks ties
        chosen.append(int(np.argmax(score)))
    return chosen


def _distances(columns, index):
    """Return the Hamming distance, uint8 [9!], of each permutation to the one at `index`."""
    # Nine passes over contiguous bytes, one per place, are faster than one pass over rows of nine.
    return sum(((column != column[index]).view(np.uint8) for column in columns), np.uint8(0))


def check_permutations(permutations: np.ndarray) -> np.ndarray:
    """Check that this is a set of at least two different permutations.

    Args:
        permutations: integer [num, 9] of 0..8.

    Returns:
        The same permutations as int32.

    Raises:
        PermutationError: if it is not. The message names the first wrong row.

    Example:
        >>> check_permutations([[0, 1, 2, 3, 4, 5, 6, 7, 8], [1, 0, 2, 3, 4, 5, 6, 7, 8]]).shape
        (2, 9)
    """
    array = np.asarray(permutations)
    if array.ndim != 2 or array.shape[1] != NUM_TILES or not np.issubdtype(array.dtype, np.integer):
        raise PermutationError(
            f"Permutations must be integers [num, {NUM_TILES}], got {array.dtype} {array.shape}."
        )
    if not 2 <= len(array) <= MAX_PERMUTATIONS:
        raise PermutationError(
            f"Expected 2..{MAX_PERMUTATIONS} (9!) permutations, got {len(array)}."
        )
    wrong = np.flatnonzero((np.sort(array, axis=1) != np.arange(NUM_TILES)).any(axis=1))
    if len(wrong):
        raise PermutationError(
            f"Row {wrong[0]} is no permutation of 0..{NUM_TILES - 1}: {array[wrong[0]].tolist()}."
        )
    _, firsts = np.unique(array, axis=0, return_index=True)
    if len(firsts) < len(array):
        again = np.setdiff1d(np.arange(len(array)), firsts)[0]
        raise PermutationError(
            f"Row {again} repeats an earlier one, {array[again].tolist()}: two labels would mean "
            "the same puzzle."
        )
    return array.astype(np.int32)


def read_permutations(path: str | os.PathLike) -> np.ndarray:
    """Read a file in the format of the released permutations_100_max.bin.

    The file contains two little-endian int32, the count and 9, then count x 9 int32 of 1..9.

    Args:
        path: path of the file; at most 9! permutations, 13 MB.

    Returns:
        int32 [num, 9] of 0..8.

    Raises:
        PermutationError: if the file cannot be used. The message names the file.
    """
    file = pathlib.Path(path)
    try:
        return check_permutations(_parsed(_content(file)) - 1)
    except (OSError, PermutationError) as error:
        raise PermutationError(f"{file}: {error}") from error


def _content(file):
    """Return the file's int32 numbers; a file of a wrong size is not read."""
    if not file.is_file():  # for example, reading a pipe would never end
        raise PermutationError("there is no such file. Pass the path of a permutations_*.bin file.")
    size = file.stat().st_size
    largest = _INT.itemsize * (_HEADER + MAX_PERMUTATIONS * NUM_TILES)
    if not _INT.itemsize * _HEADER <= size <= largest or size % _INT.itemsize:
        raise PermutationError(
            f"{size} bytes cannot be a file of permutations: expected 8 + 36 bytes for each, at "
            f"most {largest}."
        )
    with file.open("rb") as stream:
        return np.frombuffer(stream.read(largest), _INT)


def _parsed(numbers):
    """Return the permutations as in the file, int32 [count, 9] of 1..9."""
    (count, length), rest = numbers[:_HEADER], numbers[_HEADER:]
    if length != NUM_TILES or count * np.int64(NUM_TILES) != len(rest):
        raise PermutationError(
            f"the header announces {count} permutations of {length} tiles, but {len(rest)} numbers "
            f"follow: expected {NUM_TILES} tiles and count x {NUM_TILES} numbers."
        )
    if len(rest) and not (rest.min() >= 1 and rest.max() <= NUM_TILES):
        raise PermutationError(f"tiles must be 1..{NUM_TILES}, got {rest.min()} to {rest.max()}.")
    return rest.reshape(-1, NUM_TILES)


def write_permutations(path: str | os.PathLike, permutations: np.ndarray) -> None:
    """Write permutations to a file that `read_permutations` can read.

    Args:
        path: path of the file.
        permutations: integer [num, 9] of 0..8.

    Raises:
        PermutationError: if `permutations` is not a set of permutations.
    """
    array = check_permutations(permutations)
    file = pathlib.Path(path)
    temporary = file.with_name(f"{file.name}.tmp")
    header = np.array([len(array), NUM_TILES], _INT)
    temporary.write_bytes(header.tobytes() + (array + 1).astype(_INT).tobytes())
    temporary.replace(file)
