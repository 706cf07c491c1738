"""What a simulation takes, known before it starts."""

from math import ceil, exp, log, log10, sqrt

import numpy as np
from scipy.stats import binom

from justenough.assemblies.circuit import Area, Circuit
from justenough.assemblies.exact import MOST_TIED as MOST_EXACT
from justenough.assemblies.exact import count_type
from justenough.assemblies.synapses import CHUNK, NARROW
from justenough.assemblies.unfired import MOST_ROUNDS, MOST_TIED, TIMES_K

# Arrays grow by doubling, so that they hold up to twice what is in them, in each direction.
_ROOM = 2
# Of the lazy tier: bytes of a synapse, and while words are widened, with all that is then made.
_WORD, _WIDENED = 4, 36


def likely_support(circuit: Circuit, area: Area, rounds: int) -> int:
    """A guess how many neurons ever fire, never above k a round.

    The more plasticity and the more synapses, the fewer; the more neurons for each that fires,
    the more. An area that hears others, which come before it in the circuit, settles after them,
    and has more. Tried on the lazy tier, up to n = 1e10 and chains of five areas.
    """
    times = float(rounds)
    if area.beta:
        spread = 0.14 * log10(area.n / area.k)
        times = 1 + spread / area.beta / (1 + log10(max(1.0, area.k * circuit.p)))
        times *= 1 + 2 * circuit.areas.index(area)
    return min(area.n, ceil(area.k * min(rounds, times)))


def support_bound(area: Area, p: float) -> tuple[float, float]:
    """A theorem's bound on the support, and the least beta for which it is proved.

    Dabagia, Papadimitriou and Vempala, "Assemblies of neurons learn to classify well-separated
    distributions", COLT 2022, theorem on creation, of a stimulus whose neurons always fire
    (r = 1): with high probability for large n, at most k / (1 - exp(-(beta / beta0)^2)) neurons
    ever fire.

    >>> bound, least = support_bound(Area("a", 10**6, 1000, 0.1), 0.01)
    >>> round(bound), round(least, 2)
    (34128, 0.58)
    """
    spread = sqrt(2 * log(area.n / area.k))
    least = ((sqrt(2) - 1) * spread + sqrt(6)) / (sqrt(area.k * p) + spread)
    missing = 1 - exp(-((area.beta / least) ** 2))
    return (area.k / missing if missing else float("inf")), least


def exact_bytes(circuit: Circuit, rounds: int) -> dict[str, int]:
    """Bytes of `ExactBrain` by array, at most if no more neurons fire than `likely_support`."""
    ever = {a.name: likely_support(circuit, a, rounds) for a in circuit.areas}
    counts = sum(a.n * np.dtype(count_type(circuit, a)).itemsize for a in circuit.areas)
    words = ceil(rounds / 64) * _ROOM
    synapses = sum(
        ever[f.source] * ever[f.target] * _ROOM**2 // 8
        + 8 * words * _ROOM * (ever[f.source] + ever[f.target])
        + ceil(8 * circuit.area(f.source).k * ever[f.target] * circuit.p)
        for f in circuit.fibres
    )
    most = max(min(a.n, MOST_EXACT) for a in circuit.areas)
    return {
        "counts": counts,
        "synapses": synapses,
        "neurons that fired": 24 * sum(ever.values()),
        "candidates": 16 * most,
    }


def lazy_bytes(circuit: Circuit, rounds: int) -> dict[str, int]:
    """Bytes of `LazyBrain` by array, at most if no more neurons fire than `likely_support`.

    It knows, beside those that fire, others that tied with them.
    """
    ever = {a.name: likely_support(circuit, a, rounds) for a in circuit.areas}
    total = dict.fromkeys(("synapses", "neurons that fired", "rounds lost"), 0)
    for area in circuit.areas:
        heard = [f.source for f in circuit.fibres if f.target == area.name]
        sources = sum(ever[source] for source in heard)
        law = binom(area.k, circuit.p)
        level = max(0, int(law.isf(area.k / area.n)))
        tied = min(area.n * float(law.pmf(level)), max(TIMES_K * area.k, MOST_TIED))
        known = ceil(2 * ever[area.name] + tied)
        # Of each source: any neuron by chance, and more of those that it made fire.
        more = max(0.0, level + 1 - area.k * circuit.p) * len(heard)
        synapses = known * (sources * circuit.p + more) + sources * CHUNK
        word = _WORD if rounds < 1 << NARROW and known <= 1 << 32 - NARROW else _WIDENED
        total["synapses"] += ceil(9 / 8 * synapses * (word + 4 / CHUNK)) + 15 * sources
        each = 8 + 6 * len(circuit.stimuli)
        total["neurons that fired"] += each * known + 16 * ever[area.name] + 4 * sources
        # Once winners are settled, rounds are no longer different.
        different = min(rounds, ceil(3 * ever[area.name] / area.k), MOST_ROUNDS)
        room = 1 << max(3, (different - 1).bit_length())
        total["rounds lost"] += room * (5 * sources // 4 + len(circuit.stimuli) + 16)
    return total
