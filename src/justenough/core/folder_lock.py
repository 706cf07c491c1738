"""One process at a time in a folder: a lock that the operating system lets go with its process."""

import contextlib
import os
from pathlib import Path

from justenough.errors import InputError

_held: set[int] = set()


def lock_folder(folder: Path) -> int | None:
    """Lock `folder` until `unlock` is called, or this process ends, however it ends.

    The lock is on the folder itself and leaves nothing in it. It binds those who ask for it
    and nobody else.

    Returns:
        What `unlock` takes, or None where the system or the file system has no such locks.

    Raises:
        InputError: Somebody else holds it, or there is no such folder.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise InputError(f"there is no folder {str(folder)!r}; make it first") from e
    except OSError:  # it may not be listed
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(number)
        if isinstance(e, BlockingIOError):
            raise taken(folder) from e
        return None  # a file system that cannot, as some across a network
    _held.add(number)
    return number


def unlock(number: int) -> None:
    """Let go of what `lock_folder` returned; once more changes nothing."""
    if number in _held:
        _held.discard(number)
        with contextlib.suppress(OSError):
            os.close(number)


def taken(folder: Path) -> InputError:
    """What is said to the second of two processes."""
    return InputError(
        f"another process is at work in {folder.name!r}; wait for it to end, or give a new output "
        "folder with -o"
    )


def _forked() -> None:
    # A worker may outlive its killed parent, and must not hold the parent's lock then.
    for number in tuple(_held):
        unlock(number)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
