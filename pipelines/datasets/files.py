"""Files and folders of a data set before their content: names, links, special files, text files.

Loading, the data check and the unlabelled images use the same rules from here.
"""

import codecs
import pathlib
import stat
import unicodedata
import zlib

from pipelines.datasets.spec import DatasetError

# Lower case. Made by file servers, operating systems, archives and version control. Names with a
# leading dot (.git, .ipynb_checkpoints, ._a.jpg) are skipped as well.
_SYSTEM_NAMES = frozenset(
    (
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "__macosx",
        "__pycache__",
        "desktop.ini",
        "ehthumbs.db",
        "lost+found",
        "system volume information",
        "thumbs.db",
    )
)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FIRST_LINE = 4096  # bytes; enough for any path
_BLOCK = 1 << 20  # bytes


def is_system(name: str) -> bool:
    """Return whether a file or folder belongs to the system and not to the data set.

    Example:
        >>> is_system("@eaDir"), is_system("._a.jpg"), is_system("train")
        (True, True, False)
    """
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def entries(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the files and folders in a folder, sorted, without system files and folders.

    Raises:
        DatasetError: if the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not is_system(path.name))
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read: {reason(error)}. Correct it.") from error


def folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the folders in a folder, sorted, without system folders."""
    return [path for path in entries(folder) if path.is_dir()]


def normal(name: str) -> str:
    """Return a name in Unicode form NFC: macOS writes accents in another form than Linux.

    Example:
        >>> normal("e\\u0301") == "\\u00e9"
        True
    """
    return unicodedata.normalize("NFC", name)


def is_utf8(name: str) -> bool:
    """Return whether a file's name is valid UTF-8, which TensorFlow requires."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_regular(file: pathlib.Path) -> None:
    """Raise OSError unless `file` is a regular file or a link to one; open nothing.

    Opening a FIFO waits for ever, and reading a device such as /dev/zero never ends.
    """
    try:
        mode = file.stat().st_mode
    except FileNotFoundError as error:
        kind = "link to a missing file" if file.is_symlink() else "no such file"
        raise FileNotFoundError(kind) from error
    if not stat.S_ISREG(mode):
        raise OSError("not a regular file, but a folder, FIFO, socket or device")


def checksum(file: pathlib.Path, start: int = 0) -> int:
    """Return the CRC-32 of a file's content, continued from the CRC-32 `start`."""
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            start = zlib.crc32(block, start)
    return start


def reason(error: Exception) -> str:
    """Return the first line of an error, without the number and the path of the system."""
    text = getattr(error, "strerror", None) or str(error)
    return text.splitlines()[0][:100] if text else type(error).__name__


def read_lines(file: pathlib.Path, messages: list[str] | None = None) -> tuple[str, ...]:
    """Return the lines of a text file, without white space around them and at the end.

    The text is UTF-8, UTF-16 with a byte order mark, or else Windows' code page 1252.

    Args:
        file: path of the file.
        messages: gets a sentence if the encoding was a guess.

    Raises:
        DatasetError: if the file cannot be read, or if it is not a text.
    """
    try:
        check_regular(file)
        content = file.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{file} cannot be read: {reason(error)}. Correct or remove it."
        ) from error
    text, encoding = _decode(content, file)
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if encoding == "cp1252" and messages is not None:
        odd = next(line for line in lines if not line.isascii())
        messages.append(
            f"{file} is not UTF-8; it was read as Windows text (cp1252), for example {odd!r}. "
            "Save it as UTF-8 if this is wrong."
        )
    return tuple(lines)


def first_line(file: pathlib.Path) -> str:
    """Return the first line that is not empty, or "" if the file is not a readable text.

    Unrelated files lie in many folders, so no file raises an error here.
    """
    try:
        check_regular(file)
        with file.open("rb") as stream:
            lines = _decode(stream.read(_FIRST_LINE), file, errors="ignore")[0].splitlines()
    except (OSError, DatasetError):
        return ""
    return next((line.strip() for line in lines if line.strip()), "")


def _decode(content: bytes, file: pathlib.Path, errors: str = "strict") -> tuple[str, str]:
    """Return (text, encoding); with errors="ignore" the content may be cut anywhere."""
    try:
        if content.startswith(_UTF16):
            return content.decode("utf-16", errors), "utf-16"
        if b"\0" not in content:
            try:
                return content.decode("utf-8-sig"), "utf-8"
            except UnicodeDecodeError:
                return content.decode("cp1252", errors), "cp1252"
    except UnicodeDecodeError:
        pass
    raise DatasetError(f"{file} is not a text in UTF-8 or UTF-16. Save it as UTF-8.")
