"""Find the pictures that an export names: by path, by the end of a path, by name, by stem."""

import pathlib
import re
import urllib.parse
from collections.abc import Iterable

from pipelines.datasets import files, image_mask_pairs
from pipelines.datasets.sources.exports.tree import Tree

# Folders of masks and previews, lower case: a picture is never looked up there.
_NOT_PICTURES = re.compile(
    r"(masks?|ann|ann_dir|annotations?|labels?|gts?|gtfine|segmentation(class|object)\w*"
    r"|panoptic_\w+|visuali[sz]ations?|\w*visuali[sz]ation|\w+_viz)",
    re.ASCII,
)
_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")  # Label Studio puts it before uploaded names


class Finder:
    """Look up pictures by the names in annotations.

    Names may be paths of other machines, URLs, or have another case, Unicode form or ending. A
    name that fits several pictures equally well finds none.

    Args:
        tree: the files of the export.
        folder: another folder with pictures, or None.
    """

    def __init__(self, tree: Tree, folder: pathlib.Path | None = None):
        found = [file for file in tree.files if is_picture(file) and _is_candidate(tree, file)]
        self._paths = {file: _key(tree.relative(file)) for file in found}
        if folder is not None:
            other = Tree(folder)
            self._paths |= {f: _key(other.relative(f)) for f in other.files if is_picture(f)}
        self._by_name: dict[str, list[pathlib.Path]] = {}
        self._by_stem: dict[str, list[pathlib.Path]] = {}
        for file, path in self._paths.items():
            name = path.rpartition("/")[2]
            for form in {name, _PREFIX.sub("", name)}:
                self._by_name.setdefault(form, []).append(file)
                self._by_stem.setdefault(form.rpartition(".")[0], []).append(file)

    @property
    def num_pictures(self) -> int:
        """The number of pictures that can be found."""
        return len(self._paths)

    @property
    def pictures(self) -> tuple[pathlib.Path, ...]:
        """All pictures."""
        return tuple(self._paths)

    def find(self, name: object, near: str = "") -> pathlib.Path | None:
        """Return the picture of a name, or None.

        Args:
            name: the name, path or URL in the annotation.
            near: a part of the path that decides between equal names, such as a subset.
        """
        if not isinstance(name, str) or not name.strip():
            return None
        for parts in _readings(name):
            found = self._fitting(parts, near)
            if found is not None:
                return found
        return None

    def _fitting(self, parts: list[str], near: str) -> pathlib.Path | None:
        """Return the picture whose path shares the most parts with `parts`, from the end."""
        last = parts[-1]
        same_name = self._by_name.get(last) or self._by_name.get(_PREFIX.sub("", last), [])
        same_stem = self._by_stem.get(last.rpartition(".")[0], []) or self._by_stem.get(last, [])
        for group in (same_name, same_stem):
            if len(group) == 1:
                return group[0]
            if group:
                return self._closest(group, parts, near)
        return None

    def _closest(self, group: list[pathlib.Path], parts: list[str], near: str):
        def rank(file):
            own = self._paths[file].split("/")
            folders = zip(reversed(own[:-1]), reversed(parts[:-1]), strict=False)
            shared = 0
            for mine, theirs in folders:
                if mine != theirs:
                    break
                shared += 1
            is_near = bool(near) and _key(near) in own[:-1]
            is_whole = shared == len(parts) - 1
            return (own == parts, is_whole, shared, is_near)

        ranks = sorted(((rank(file), file) for file in group), key=lambda entry: entry[0])
        best, second = ranks[-1], ranks[-2]
        return best[1] if best[0] > second[0] else None


def is_picture(file: pathlib.Path) -> bool:
    """Return whether a file has the ending of an image."""
    return file.suffix.lower() in image_mask_pairs.IMAGE_ENDINGS


def _is_candidate(tree: Tree, file: pathlib.Path) -> bool:
    folders = pathlib.PurePosixPath(tree.relative(file)).parts[:-1]
    return not any(_NOT_PICTURES.fullmatch(part.lower()) for part in folders)


def _key(path: str) -> str:
    return files.normal(path).casefold()


def _readings(name: str) -> Iterable[list[str]]:
    """Yield the parts of a name as it is, and then as a URL."""
    yield _parts(name)
    address = urllib.parse.urlsplit(name) if "://" in name or "?" in name or "%" in name else None
    if address is not None:
        query = urllib.parse.parse_qs(address.query)
        path = query["d"][0] if query.get("d") else urllib.parse.unquote(address.path)
        yield _parts(path)


def _parts(path: str) -> list[str]:
    parts = [part for part in _key(path).replace("\\", "/").split("/") if part not in ("", ".")]
    return [part for part in parts if part != ".."] or [""]


def unique_ids(paths: list[str]) -> list[str]:
    """Return the paths' stems, or their parts joined by "_" if two stems are equal.

    Example:
        >>> unique_ids(["a/x.png", "b/x.png"])
        ['a_x', 'b_x']
    """
    listed = [pathlib.PurePosixPath(path) for path in paths]
    for names in (
        [path.stem for path in listed],
        ["_".join(path.with_suffix("").parts) for path in listed],
        ["_".join(path.parts) for path in listed],
    ):
        if len(set(names)) == len(names):
            return names
    return [f"{k}_{path.name}" for k, path in enumerate(listed)]
