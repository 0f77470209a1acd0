"""Sets of permutations, and their files, whatever is in these."""

import itertools
import os
import struct

import numpy as np
import pytest

from pipelines.batches import permutations
from pipelines.batches.permutations import PermutationError


def hamming(chosen):
    """All pairwise distances, one by one."""
    pairs = itertools.combinations(chosen.tolist(), 2)
    return [sum(a != b for a, b in zip(*pair, strict=True)) for pair in pairs]


@pytest.mark.parametrize(
    ("rule", "num", "seed"),
    [
        ("mean", 100, 0),
        ("mean", 100, 1),
        ("minimum", 100, 0),
        ("minimum", 100, 1),
        ("mean", 1000, 0),
        pytest.param("mean", 1000, 1, marks=pytest.mark.slow),
    ],
)
def test_sets_have_the_golden_statistics(golden, rule, num, seed):
    expected = golden("jigsaw")["permutation_sets"][f"{rule}_{num}"]
    distances = hamming(permutations.permutation_set(num, rule, seed))
    assert np.mean(distances) == pytest.approx(expected["mean_hamming"], abs=5e-4)
    assert min(distances) == expected["min_hamming"]


@pytest.fixture(scope="module")
def everything():
    return np.array(list(itertools.permutations(range(9))), np.uint8)


@pytest.mark.parametrize("rule", permutations.RULES)
@pytest.mark.parametrize("k", [1, 10, 14])  # up to 9 can differ in all places
def test_each_chosen_permutation_is_the_farthest(everything, rule, k):
    chosen = permutations.permutation_set(k + 1, rule, seed=3)
    distances = np.stack([(everything != row).sum(1) for row in chosen[:k]])
    score = distances.sum(0) + (1000 * distances.min(0) if rule == "minimum" else 0)
    score[distances.min(0) == 0] = -1
    np.testing.assert_array_equal(chosen[k], everything[np.argmax(score)])


def test_the_set_depends_only_on_the_seed():
    first = permutations.permutation_set(30, seed=4).copy()
    permutations.permutation_set.cache_clear()
    np.testing.assert_array_equal(permutations.permutation_set(30, seed=4), first)
    assert (permutations.permutation_set(30, seed=5)[0] != first[0]).any()
    # A smaller set is the beginning of a larger one.
    np.testing.assert_array_equal(permutations.permutation_set(12, seed=4), first[:12])
    permutations.check_permutations(first)


def test_a_cached_set_is_read_only():
    with pytest.raises(ValueError, match="read-only"):
        permutations.permutation_set(30)[0] = 0


@pytest.mark.parametrize(
    "num, rule, message",
    [(1, "mean", "2..362880.* got 1"), (362881, "mean", "got 362881"), (9, "max", "rule 'max'")],
)
def test_wrong_arguments_raise_an_error_with_their_name(num, rule, message):
    with pytest.raises(PermutationError, match=message):
        permutations.permutation_set(num, rule)


@pytest.mark.parametrize(
    "rows, message",
    [
        (np.arange(9), r"\[num, 9\], got int64 \(9,\)"),
        (np.zeros((2, 9)), "integers.* float64"),
        (np.arange(9)[None], "got 1"),
        ([[0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 3, 4, 5, 6, 7, 9]], "Row 1 is no permutation"),
        ([[0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 3, 4, 5, 6, 7, 7]], "Row 1 is no permutation"),
        ([list(range(9)), list(range(8, -1, -1)), list(range(9))], "Row 2 repeats"),
    ],
)
def test_arrays_that_are_no_set_of_permutations_raise_an_error(rows, message):
    with pytest.raises(PermutationError, match=message):
        permutations.check_permutations(rows)


def content(count, length, numbers):
    return struct.pack(f"<ii{len(numbers)}i", count, length, *numbers)


FORWARD, BACKWARD = list(range(1, 10)), list(range(9, 0, -1))


def test_the_file_has_the_released_format(tmp_path):
    file = tmp_path / "permutations.bin"
    permutations.write_permutations(file, np.array([FORWARD, BACKWARD]) - 1)
    assert file.read_bytes() == content(2, 9, FORWARD + BACKWARD)
    assert list(tmp_path.iterdir()) == [file]
    read = permutations.read_permutations(str(file))
    np.testing.assert_array_equal(read, [list(range(9)), list(range(8, -1, -1))])
    assert read.dtype == np.int32


def test_a_written_set_can_be_read_again(tmp_path):
    chosen = permutations.permutation_set(100)
    permutations.write_permutations(tmp_path / "p", chosen)
    np.testing.assert_array_equal(permutations.read_permutations(tmp_path / "p"), chosen)


def test_only_sets_of_permutations_are_written(tmp_path):
    with pytest.raises(PermutationError, match="Row 0"):
        permutations.write_permutations(tmp_path / "p", [FORWARD, BACKWARD])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "0 bytes cannot be"),
        (b"\1\0\0\0\11\0\0", "7 bytes cannot be"),
        (content(2, 9, FORWARD + BACKWARD) + b"\0", "81 bytes cannot be"),
        (content(2, 9, FORWARD + BACKWARD)[:-4], "announces 2 .* 17 numbers follow"),
        (content(2, 9, FORWARD + BACKWARD + [1]), "announces 2 .* 19 numbers follow"),
        (content(2**31 - 1, 9, FORWARD), "announces 2147483647 .* 9 numbers"),
        (content(-2, 9, FORWARD), "announces -2 "),
        (content(477218589, 9, [5]), "announces 477218589 "),  # times 9 is 5 modulo 2**32
        (content(2, 4, FORWARD[:8]), "of 4 tiles"),
        (content(0, 9, []), "got 0"),
        (content(1, 9, FORWARD), "got 1"),
        (content(2, 9, FORWARD + [0, *range(1, 9)]), "must be 1..9, got 0 to 9"),
        (content(2, 9, FORWARD + [-(2**31), *range(1, 9)]), "must be 1..9, got -2147483648"),
        (content(2, 9, FORWARD + [1] * 9), "Row 1 is no permutation"),
        (content(2, 9, FORWARD + FORWARD), "Row 1 repeats"),
        (np.array([2, 9, *FORWARD, *BACKWARD], ">i4").tobytes(), "announces 33554432 "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_file_raises_an_error_with_its_name(tmp_path, data, message):
    file = tmp_path / "broken.bin"
    file.write_bytes(data)
    with pytest.raises(PermutationError, match=f"broken.bin: .*{message}"):
        permutations.read_permutations(file)


def test_a_huge_file_is_not_read(tmp_path):
    file = tmp_path / "huge.bin"
    with file.open("wb") as stream:
        stream.truncate(2**40)  # sparse
    with pytest.raises(PermutationError, match="huge.bin: 1099511627776 bytes"):
        permutations.read_permutations(file)


def test_a_path_without_a_file_raises_an_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("nothing", "pipe", "."):
        with pytest.raises(PermutationError, match="there is no such file"):
            permutations.read_permutations(tmp_path / name)
