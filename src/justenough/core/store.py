"""The run store: every evaluation is written the moment it is known, and never asked twice."""

import contextlib
import io
import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError

Array = NDArray[Any]
FORMAT = "justenough run 1"
_TABLE = (
    "CREATE TABLE IF NOT EXISTS records (step TEXT PRIMARY KEY, json TEXT, "
    "arrays BLOB, seconds REAL, created TEXT DEFAULT CURRENT_TIMESTAMP)"
)
_DAMAGED = "is not a run store, or a damaged one"


class Store:
    """One SQLite file (WAL) that belongs to one set of inputs.

    A killed run leaves whole records only; the same call goes on after the last one.
    """

    def __init__(self, path: Path, identity: Mapping[str, str] | None = None) -> None:
        """Open `path`; with `identity`, make it or check that it belongs to those inputs."""
        self.path = path
        if identity is None and not path.is_file():
            raise InputError(f"no run store at {str(path)!r}; give the folder of a compress run")
        self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
        try:
            known = self._known()
            if identity is not None and not known:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute(_TABLE)
            self._db.execute("PRAGMA synchronous=NORMAL")
            if identity is not None:
                self._own(dict(identity))
        except (sqlite3.Error, InputError) as e:
            self._db.close()
            if isinstance(e, InputError):
                raise
            full = "full" in str(e) or "I/O" in str(e)
            why = f"cannot be written, the disk may be full ({e})" if full else f"{_DAMAGED}: {e}"
            raise InputError(f"{path.name} {why}") from e

    def _known(self) -> bool:
        """Whether the file is a run store; raise, with nothing changed, if it is another's."""
        tables = {t for (t,) in self._db.execute("SELECT name FROM sqlite_master")}
        if not tables:
            return False
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(records)")}
        if not columns >= {"step", "json", "arrays", "seconds", "created"}:
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
        row = self._row("json", step)
        return None if row is None else json.loads(row)

    def arrays(self, step: str) -> dict[str, Array]:
        """The arrays recorded for `step`, by name."""
        row = self._row("arrays", step)
        if row is None:
            raise InputError(f"the run store has no arrays for {step!r}")
        with np.load(io.BytesIO(row), allow_pickle=False) as z:
            return {k: z[k] for k in z.files}

    def _row(self, column: str, step: str) -> Any:
        try:
            found = self._db.execute(f"SELECT {column} FROM records WHERE step = ?", (step,))
            row = found.fetchone()
        except sqlite3.Error as e:
            raise InputError(f"{self.path.name} {_DAMAGED}: {e}") from e
        return None if row is None else row[0]

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
        try:
            self._db.execute(
                "INSERT INTO records (step, json, arrays, seconds) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET json = excluded.json, arrays = excluded.arrays, "
                "seconds = excluded.seconds, created = CURRENT_TIMESTAMP "
                "WHERE json IS NOT excluded.json OR arrays IS NOT excluded.arrays",
                (step, json.dumps(value), blob, seconds),
            )
        except sqlite3.Error as e:
            raise InputError(
                f"cannot write {self.path.name} ({e}); if the disk is full, free some space and "
                "call again, nothing done so far is lost"
            ) from e

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
        rows = self._db.execute("SELECT step, seconds FROM records ORDER BY rowid")
        return {step: float(s or 0) for step, s in rows}

    def close(self) -> None:
        """Close the file, leaving one file and no journal."""
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()
