"""The run store: every evaluation is written the moment it is known, and never asked twice."""

import contextlib
import hashlib
import io
import json
import sqlite3
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from justenough.core.folder_lock import lock_folder, taken, unlock
from justenough.errors import InputError

Array = NDArray[Any]
FORMAT = "justenough run 2"
_TABLE = (
    "CREATE TABLE IF NOT EXISTS records (step TEXT PRIMARY KEY, json TEXT, arrays BLOB, "
    "seconds REAL, digest TEXT, created TEXT DEFAULT CURRENT_TIMESTAMP)"
)
_COLUMNS = {"step", "json", "arrays", "seconds", "digest", "created"}
_DAMAGED = "is not a run store, or a damaged one"
_ERRORS = (sqlite3.Error, UnicodeDecodeError)  # the latter: what SQLite says of damaged text
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM}
_CLOSED = {
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
}  # fmt: skip


class Store:
    """One SQLite file (WAL) that belongs to one set of inputs, written by one process at a time.

    A killed run leaves whole records only; the same call goes on after the last one. Every
    record has a digest, so that what comes back is what was recorded, or an error.
    """

    def __init__(self, path: Path, identity: Mapping[str, str] | None = None) -> None:
        """Open `path`; with `identity`, make it or check that it belongs to those inputs.

        With `identity` the store locks its folder until it is closed; without, it only reads.

        Raises:
            InputError: Another process holds the folder, or the file cannot be used: it
                belongs to other inputs, is something else, is damaged, or cannot be written.
        """
        self.path, self._writes = path, identity is not None
        if identity is None and not path.is_file():
            raise InputError(f"no run store at {str(path)!r}; give the folder of a compress run")
        lock = None if identity is None else lock_folder(path.parent)
        self._release = weakref.finalize(self, lambda: None if lock is None else unlock(lock))
        try:
            _refuse_emptied(path)
            self._db = self._connect(lock is not None)
        except _ERRORS as e:
            self._release()
            raise self._refusal(e) from e
        except InputError:
            self._release()
            raise
        # Damaged text is some text, whose digest is wrong; not an error in the middle of a read.
        self._db.text_factory = lambda b: b.decode(errors="replace")
        try:
            self._begin(identity)
        except BaseException as e:
            self._db.close()
            self._release()
            if isinstance(e, _ERRORS):
                raise self._refusal(e) from e
            raise

    def _connect(self, locked: bool) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, timeout=10)
        if self._writes:
            if not locked:  # then SQLite's own lock, which keeps readers out too
                db.execute("PRAGMA busy_timeout=100")
                db.execute("PRAGMA locking_mode=EXCLUSIVE")
            return db
        try:
            db.execute("SELECT name FROM sqlite_master").fetchall()
        except sqlite3.OperationalError as e:
            wal = self.path.with_name(self.path.name + "-wal")
            if _kind(e) not in _CLOSED or wal.exists():
                return db
            db.close()  # nobody can write there, so that it may be read as it is
            return sqlite3.connect(f"{self.path.absolute().as_uri()}?immutable=1", uri=True)
        except _ERRORS:  # said where it is read again
            pass
        return db

    def _begin(self, identity: Mapping[str, str] | None) -> None:
        known = self._known()
        if identity is None:
            return
        (said,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()
        if said != "ok":
            raise InputError(f"{self.path.name} {_DAMAGED}: {' '.join(said.split())}")
        if not known:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(_TABLE)
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._own(dict(identity))

    def _known(self) -> bool:
        """Whether the file is a run store; raise, with nothing changed, if it is another's."""
        tables = {t for (t,) in self._db.execute("SELECT name FROM sqlite_master")}
        if not tables:
            return False
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(records)")}
        if columns == _COLUMNS - {"digest"}:
            raise InputError(
                f"{self.path.name} was written by an earlier version of justenough; give a new "
                "output folder with -o"
            )
        if not columns >= _COLUMNS:
            raise InputError(f"{self.path.name} is the database of something else")
        return True

    def _own(self, identity: dict[str, str]) -> None:
        mine = self.get("identity")
        if mine is None:
            self.put("identity", {"format": FORMAT, **identity})
            return
        differs = [k for k, v in {"format": FORMAT, **identity}.items() if mine.get(k) != v]
        if differs:
            raise InputError(
                f"{self.path.parent.name!r} belongs to a run with another {', '.join(differs)}; "
                "give a new output folder with -o"
            )

    def get(self, step: str) -> Any:
        """The JSON value recorded for `step`, or None."""
        row = self._row(step)
        return None if row is None else row[0]

    def arrays(self, step: str) -> dict[str, Array]:
        """The arrays recorded for `step`, by name."""
        row = self._row(step)
        if row is None or row[1] is None:
            raise InputError(f"the run store has no arrays for {step!r}")
        try:
            with np.load(io.BytesIO(row[1]), allow_pickle=False) as z:
                return {k: z[k] for k in z.files}
        except Exception as e:  # digests agree: somebody else wrote it, in whatever form
            raise InputError(f"{self.path.name} {_DAMAGED}, at {step!r}: {e}") from e

    def _row(self, step: str) -> tuple[Any, bytes | None] | None:
        """The value and the array bytes recorded for `step`, checked against their digest."""
        try:
            found = self._db.execute(
                "SELECT json, arrays, seconds, digest FROM records WHERE step = ?", (step,)
            ).fetchone()
        except _ERRORS as e:
            raise self._refusal(e) from e
        if found is None:
            return None
        text, blob, seconds, digest = found
        with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
            if digest == _digest(step, text, blob, seconds):
                return json.loads(text), blob
        raise InputError(
            f"{self.path.name} {_DAMAGED}: its record of {step!r} is not what was written; "
            "give a new output folder with -o, or put back a copy"
        )

    def put(
        self,
        step: str,
        value: Any,
        arrays: Mapping[str, Array] | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Record `value` (JSON) and `arrays` for `step` in one transaction, unless they are."""
        blob = None
        if arrays is not None:
            buffer = io.BytesIO()
            cast(Any, np.savez)(buffer, **arrays)
            blob = buffer.getvalue()
        text, seconds = json.dumps(value), float(seconds)
        try:
            self._db.execute(
                "INSERT INTO records (step, json, arrays, seconds, digest) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET json = excluded.json, arrays = excluded.arrays, "
                "seconds = excluded.seconds, digest = excluded.digest, "
                "created = CURRENT_TIMESTAMP "
                "WHERE json IS NOT excluded.json OR arrays IS NOT excluded.arrays",
                (step, text, blob, seconds, _digest(step, text, blob, seconds)),
            )
        except _ERRORS as e:
            raise self._refusal(e) from e

    def once(self, step: str, compute: Callable[[], Any]) -> Any:
        """The value recorded for `step`, computed and recorded when it is not there yet."""
        known = self.get(step)
        if known is not None:
            return known
        start = time.perf_counter()
        value = compute()
        self.put(step, value, seconds=time.perf_counter() - start)
        return value

    def once_arrays(
        self, step: str, compute: Callable[[], Mapping[str, Array]]
    ) -> dict[str, Array]:
        """Like `once`, for arrays by name."""
        if self.get(step) is None:
            start = time.perf_counter()
            arrays = dict(compute())
            self.put(step, sorted(arrays), arrays, seconds=time.perf_counter() - start)
        return self.arrays(step)

    def seconds(self) -> dict[str, float]:
        """Wall seconds that each recorded step took when it was computed."""
        try:
            rows = self._db.execute("SELECT step, seconds FROM records ORDER BY rowid").fetchall()
        except _ERRORS as e:
            raise self._refusal(e) from e
        return {step: float(s or 0) for step, s in rows}

    def close(self) -> None:
        """Close the file, leaving one file and no journal, and let go of the folder."""
        if self._writes:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()
        self._release()

    def _refusal(self, e: Exception) -> InputError:
        """What SQLite says, as a sentence that says what would do."""
        name, folder, kind = self.path.name, self.path.parent, _kind(e)
        if kind in _BUSY:
            return taken(folder)
        if kind in _FULL:
            return InputError(
                f"cannot write {name} ({e}); if the disk is full, free some space and call "
                "again, nothing done so far is lost"
            )
        if kind in _CLOSED:
            return InputError(
                f"cannot open {name} to write ({e}); make {str(folder)!r} writable, or give a "
                "new output folder with -o"
            )
        return InputError(f"{name} {_DAMAGED}: {' '.join(str(e).split())}")


def _kind(e: Exception) -> int:
    """SQLite's primary error code; 0 where Python's own module complains."""
    return int(getattr(e, "sqlite_errorcode", 0)) & 0xFF


def _digest(step: str, text: str, blob: bytes | None, seconds: float) -> str:
    """Digest (BLAKE2b, 128 bits) of all that a record holds."""
    h = hashlib.blake2b(json.dumps([step, text, seconds, blob is None]).encode(), digest_size=16)
    h.update(blob or b"")
    return h.hexdigest()


def _refuse_emptied(path: Path) -> None:
    """A new store is made in a new folder only: beside results, an empty one has lost its rows.

    SQLite would take a file of less than its smallest page for an empty database.
    """
    size = path.stat().st_size if path.is_file() else 512
    if 0 < size < 512:
        raise InputError(f"{path.name} {_DAMAGED}: it has {size} bytes")
    if size == 0:
        beside = sorted(p.name for p in path.parent.iterdir())
        others = [n for n in beside if not n.startswith(path.name)]
        if others or path.name + "-wal" in beside:
            raise InputError(
                f"{path.name} is empty, but {path.parent.name!r} holds results; put back a copy "
                "of it, or give a new output folder with -o"
            )
