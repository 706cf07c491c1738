"""Made-up conversations with known weights, generated block by block and never all at once.

A synthetic study can say whether the analyses find what was put in, how sure they are and how
long they take. It cannot say anything about how people remember.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError

SIGNALS = ("decay", "surprise", "relevance", "habituation")
OUTCOMES = ("importance", "retrieval", "usefulness")
# Weights of the signals in each outcome; those of importance are what the document hopes for.
WEIGHTS = ((0.10, 0.60, 0.20, 0.10), (0.25, 0.25, 0.40, 0.10), (0.05, 0.35, 0.35, 0.25))
BLOCK = 1_000
Array32 = NDArray[np.float32]


@dataclass(frozen=True)
class World:
    """What generates the conversations.

    A signal of turn t in conversation c is (1 - r) u + r v: u of the turn, v of the conversation,
    both uniform on [0, 1]; decay is squared, so that most turns are old; habituation is one less
    the mean of such a mixture and of surprise, so that what surprises is not yet a habit. An
    outcome is the weighted sum of the signals, plus `bend` times (surprise - 1/2) (relevance -
    1/2), plus normal noise of the conversation and of the turn.

    Attributes:
        conversations: How many.
        turns: Of each conversation.
        seed: Of everything; block b of conversations is made from (seed, b) alone.
        shared: r, what the turns of a conversation share, in [0, 1).
        noise: Standard deviation of the noise of a turn.
        apart: Standard deviation of the noise of a conversation.
        bend: How far from linear the truth is.
    """

    conversations: int
    turns: int = 50
    seed: int = 0
    shared: float = 0.3
    noise: float = 0.15
    apart: float = 0.05
    bend: float = 0.0

    def __post_init__(self) -> None:
        if self.conversations < 2 or self.turns < 2:
            raise InputError(
                f"{self.conversations} conversations of {self.turns} turns; give 2 or more of each"
            )
        if not 0.0 <= self.shared < 1.0:
            raise InputError(f"turns share {self.shared} of a signal; give 0 or more, less than 1")
        if self.noise <= 0.0 or self.apart < 0.0:
            raise InputError(
                "the noise of a turn must be above 0, that of a conversation not below"
            )

    @property
    def n_blocks(self) -> int:
        """Blocks of `BLOCK` conversations; the last may be shorter."""
        return -(-self.conversations // BLOCK)

    def block(self, b: int, outcomes: int = 1) -> Array32:
        """Block `b` of conversations: (conversations, turns, 4 signals + outcomes) float32.

        >>> World(1_500).block(1).shape
        (500, 50, 5)
        """
        c = min(BLOCK, self.conversations - b * BLOCK)
        rng = np.random.Generator(np.random.SFC64([self.seed, b]))
        own = rng.random((c, self.turns, 4), np.float32)
        common = rng.random((c, 1, 4), np.float32)
        out = np.empty((c, self.turns, 4 + outcomes), np.float32)
        signals = out[..., :4]
        np.multiply(own, np.float32(1.0 - self.shared), out=signals)
        signals += np.float32(self.shared) * common
        signals[..., 0] *= signals[..., 0]
        signals[..., 3] += signals[..., 1]
        signals[..., 3] *= np.float32(-0.5)
        signals[..., 3] += np.float32(1.0)
        noise = rng.standard_normal((c, self.turns, outcomes), np.float32)
        noise *= np.float32(self.noise)
        noise += np.float32(self.apart) * rng.standard_normal((c, 1, outcomes), np.float32)
        out[..., 4:] = signals @ np.array(WEIGHTS[:outcomes], np.float32).T
        out[..., 4:] += noise
        if self.bend:
            pair = signals[..., 1:3] - np.float32(0.5)
            out[..., 4:] += np.float32(self.bend) * pair[..., :1] * pair[..., 1:]
        return out

    def covariance(self) -> NDArray[np.float64]:
        """Exact covariance (5, 5) of the four signals and importance over turns.

        Of s = (1 - r) u + r v the central moments are those of two uniforms: variance
        ((1-r)^2 + r^2) / 12, fourth moment ((1-r)^4 + r^4) / 80 + 6 (1-r)^2 r^2 / 144, no odd
        ones; so s^2 has variance m4 - m2^2 + m2, twice 1/2 being 1. The bent part is centred and
        has no covariance with any signal, its variance is bend^2 m2^2.

        >>> World(2, shared=0.0).covariance().diagonal()[:2].round(4).tolist()
        [0.0889, 0.0833]
        """
        r = self.shared
        m2 = ((1 - r) ** 2 + r**2) / 12
        m4 = ((1 - r) ** 4 + r**4) / 80 + 6 * (1 - r) ** 2 * r**2 / 144
        signals = np.diag([m4 - m2**2 + m2, m2, m2, m2 / 2])
        signals[1, 3] = signals[3, 1] = -m2 / 2
        weights = np.array(WEIGHTS[0])
        cross = signals @ weights
        noise = self.noise**2 + self.apart**2 + (self.bend * m2) ** 2
        return np.block([[signals, cross[:, None]], [cross[None, :], weights @ cross + noise]])
