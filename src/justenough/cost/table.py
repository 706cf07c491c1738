"""Cost tables: what each node costs in each format, and each conversion between them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """A node that can run in int8: a site's node, or one that follows its producers.

    Attributes:
        name: Node name.
        site: The site whose choice it takes; None for a follower, which is int8 when all of
            `parents` are.
        parents: Units that feed it, by index.
        fp32_s: Seconds per call in float32, `int8_s` in int8.
    """

    name: str
    site: str | None
    parents: tuple[int, ...]
    fp32_s: float
    int8_s: float


@dataclass(frozen=True)
class Edge:
    """A tensor next to int8 units, and what converting it costs.

    Attributes:
        producer: Index of the unit that makes it, None for a node that stays float.
        consumers: Indices of the units that read it; -1 for any node that stays float.
        quantize_s: Seconds to convert it to int8, where its producer is float.
        dequantize_s: Seconds to convert it back, once for each float reader.
        pinned_float: Whether int8 producers write it in float anyway.
    """

    producer: int | None
    consumers: tuple[int, ...]
    quantize_s: float
    dequantize_s: float
    pinned_float: bool = False


@dataclass(frozen=True)
class Local:
    """A choice whose node reads and writes floats, so that its neighbours do not matter.

    Attributes:
        change_s: Seconds per call that it adds to the site in float32; negative where faster.
    """

    site: str
    choice: str
    change_s: float


@dataclass(frozen=True)
class CostTable:
    """Measured costs of one model at one batch size and thread count, in seconds per call."""

    units: tuple[Unit, ...]
    edges: tuple[Edge, ...]
    fp32_s: float
    local: tuple[Local, ...] = ()

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in order of their first unit."""
        return tuple(dict.fromkeys(u.site for u in self.units if u.site is not None))
