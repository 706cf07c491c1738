import numpy as np
import pytest

from justenough.assemblies.philox import philox4x32, words

# Random123 1.14, tests/kat_vectors: counter, key, output.
KNOWN = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def parsed(text: str) -> list[int]:
    return [int(w, 16) for w in text.split()]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_known_answers(counter: str, key: str, output: str) -> None:
    (a, b, c, d), (k, q) = parsed(counter), parsed(key)
    want = parsed(output)
    assert list(philox4x32((a, b, c, d), (k, q))) == want
    got = words((a, b, c, d), (k, q))
    assert [int(w) for w in got] == [want[0] | want[1] << 32, want[2] | want[3] << 32]


def test_arrays_are_the_scalar_generator() -> None:
    rng = np.random.default_rng(0)
    counters = rng.integers(0, 2**32, (4, 50), dtype=np.uint64)
    a, b, c, d = counters
    got = words((a, b, c, d), (7, 2**32 - 1))
    for i in range(50):
        w = philox4x32((int(a[i]), int(b[i]), int(c[i]), int(d[i])), (7, 2**32 - 1))
        assert [int(x) for x in got[i]] == [w[0] | w[1] << 32, w[2] | w[3] << 32]
