"""How far rounded values are off."""

import math

import numpy as np

from justenough.formats.format import Floats


def snr_db(x: Floats, rounded: Floats) -> float:
    """Power of `x` over that of the error, in dB; infinity without error, -infinity for zeros.

    Sums are in float64, over arrays of one shape. NaN in gives NaN.

    >>> round(snr_db(np.float32([3, 4]), np.float32([3, 4.5])), 2)
    20.0
    """
    exact = np.asarray(x, np.float64)
    error = float(np.square(exact - rounded).sum())
    signal = float(np.square(exact).sum())
    if error == 0:
        return math.inf
    return 10 * math.log10(signal / error) if signal else -math.inf
