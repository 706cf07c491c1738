"""Plain data as named arrays and back, without pickle: only classes that are named are made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.assemblies.saved import unfit

_TREE = "tree"


def pack(value: Any) -> dict[str, NDArray[Any]]:
    """Arrays that hold `value`, which `unpack` gives again.

    Args:
        value: Numbers, texts, bytes, arrays, dictionaries, lists, tuples, dataclasses and named
            tuples of such. All random generators in it must be one, of NumPy's.

    Raises:
        TypeError: There is something else in it.

    >>> unpack(pack({"a": (1, np.arange(2))}), ())
    {'a': (1, array([0, 1]))}
    """
    arrays: dict[str, NDArray[Any]] = {}

    def keep(array: Any) -> str:
        name = f"a{len(arrays)}"
        arrays[name] = np.asarray(array)
        return name

    def walk(v: Any) -> Any:
        if v is None or isinstance(v, bool | int | float | str):
            return v
        if isinstance(v, np.ndarray | np.generic):
            return {"array" if isinstance(v, np.ndarray) else "scalar": keep(v)}
        if isinstance(v, bytes):
            return {"bytes": v.hex()}
        if isinstance(v, np.random.Generator):
            return {"rng": walk(v.bit_generator.state)}
        if is_dataclass(v) or hasattr(v, "_asdict"):
            held = vars(v) if is_dataclass(v) else v._asdict()
            return {"object": type(v).__name__, "fields": walk(held)}
        if isinstance(v, dict):
            return {"dict": [[walk(a), walk(b)] for a, b in v.items()]}
        if isinstance(v, list | tuple):
            return {type(v).__name__: [walk(x) for x in v]}
        raise TypeError(f"{type(v).__name__} cannot be kept")

    tree = json.dumps(walk(value)).encode()
    return {_TREE: np.frombuffer(tree, np.uint8), **arrays}


def unpack(
    packed: Mapping[str, NDArray[Any]],
    classes: Sequence[type],
    rng: np.random.Generator | None = None,
) -> Any:
    """What `pack` got.

    Args:
        packed: From `pack`.
        classes: Those that may be made.
        rng: It takes the state of the generator that was packed, and is put in its places.

    Raises:
        InputError: `pack` did not make it, or it holds another class.
    """
    known = {c.__name__: c for c in classes}

    def build(v: Any) -> Any:
        if not isinstance(v, dict):
            return v
        (kind, *_), (held, *_) = v.keys(), v.values()
        if kind in ("array", "scalar"):
            array = np.array(packed[held])
            return array if kind == "array" else array[()]
        if kind == "bytes":
            return bytes.fromhex(held)
        if kind in ("list", "tuple"):
            return [build(x) for x in held] if kind == "list" else tuple(map(build, held))
        if kind == "dict":
            return {build(a): build(b) for a, b in held}
        if kind == "rng" and rng is not None:
            rng.bit_generator.state = build(held)
            return rng
        return _made(known[held], build(v["fields"]))

    try:
        return build(json.loads(packed[_TREE].tobytes()))
    except Exception as e:  # of whatever a foreign tree makes of this
        raise unfit(f"{type(e).__name__}: {e}") from e


def _made(kind: type, held: dict[str, Any]) -> Any:
    if not is_dataclass(kind):
        return kind(**held)
    if held.keys() != {f.name for f in fields(kind)}:
        raise ValueError(f"{kind.__name__} has other fields")
    made: Any = object.__new__(kind)
    vars(made).update(held)
    return made
