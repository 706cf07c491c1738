"""Which of many candidates keep their risk below a limit: all that are named do, at once."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from justenough.errors import InputError
from justenough.stats.checks import checked_share, finite_matrix, within_unit
from justenough.stats.concentration import hoeffding_bentkus_of
from justenough.stats.multiplicity import Procedure, Rejections

RiskP = Literal["hoeffding_bentkus", "binomial"]


def learn_then_test(
    losses: ArrayLike,
    *,
    at_most: float,
    alpha: float,
    procedure: Procedure,
    p_value: RiskP = "hoeffding_bentkus",
) -> Rejections:
    """Return which candidates are shown to have a mean loss below `at_most`.

    Angelopoulos, Bates, Candès, Jordan & Lei 2021, "Learn then test: calibrating predictive
    algorithms to achieve risk control" (arXiv 2110.01052), theorem 1: a p-value for "the risk is
    at_most or more" of each candidate, then a procedure for many. With one that bounds the chance
    of any false rejection (`fixed_sequence`, `holm`, or `graphical` with its graph filled in),
    the risk of every rejected candidate is below the limit with probability >= 1 - alpha, so one
    may choose the cheapest of them. With `benjamini_hochberg` that is not so. The candidates,
    their order and the procedure must have been fixed without these rows.

    Args:
        losses: Loss of each independent unit (row) under each candidate (column), in [0, 1], shape
            (n, m); rows of one unit must be averaged first.
        at_most: Limit of the mean loss, in (0, 1).
        alpha: Allowed probability that any candidate is named wrongly, in (0, 1).
        procedure: From `justenough.stats.multiplicity`.
        p_value: "binomial" is exact and needs losses of 0 and 1.

    Returns:
        `rejected`: the valid candidates; `adjusted`: their adjusted p-values; both shape (m,).

    Raises:
        InputError: As `risk_p_values` and the procedure.

    >>> from justenough.stats.multiplicity import holm
    >>> losses = np.arange(1000)[:, None] < [0, 1, 2, 20]
    >>> learn_then_test(losses, at_most=0.01, alpha=0.05, procedure=holm).rejected
    array([ True,  True,  True, False])
    """
    return procedure(risk_p_values(losses, at_most=at_most, p_value=p_value), alpha=alpha)


def risk_p_values(
    losses: ArrayLike, *, at_most: float, p_value: RiskP = "hoeffding_bentkus"
) -> NDArray[np.float64]:
    """Return for each candidate a p-value for "its mean loss is `at_most` or more", shape (m,).

    `concentration.hoeffding_bentkus_p`, or P(Bin(n, at_most) <= failures) for losses of 0 and 1.

    Args:
        losses: As for `learn_then_test`, shape (n, m).
        at_most: As for `learn_then_test`.
        p_value: As for `learn_then_test`.

    Raises:
        InputError: For a table that is empty, not (n, m), not finite or outside [0, 1]; for losses
            other than 0 and 1 with "binomial"; for at_most outside (0, 1) or an unknown p_value.

    >>> risk_p_values([[0, 1], [0, 0]], at_most=0.5, p_value="binomial")
    array([0.25, 0.75])
    """
    checked_share("at_most", at_most)
    table = within_unit("losses", finite_matrix("losses", losses))
    totals = table.sum(axis=0)
    if p_value == "hoeffding_bentkus":
        return hoeffding_bentkus_of(totals, len(table), at_most)
    if p_value != "binomial":
        raise InputError(f"p_value is {p_value!r}; it must be hoeffding_bentkus or binomial")
    if not np.isin(table, (0.0, 1.0)).all():
        raise InputError("losses holds values other than 0 and 1; use p_value='hoeffding_bentkus'")
    exact: NDArray[np.float64] = binom.cdf(totals, len(table), at_most)
    return exact
