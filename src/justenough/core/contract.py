"""Contracts: what must not change, said as clauses, read from text or TOML."""

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from justenough.core.gate import Gate
from justenough.core.subject import Outputs
from justenough.errors import InputError

Array = NDArray[Any]
PER = ("any", "mean", "max")


@dataclass(frozen=True)
class Metric:
    """What a clause may ask about.

    Attributes:
        at_least: Whether bounds read `>=` (a stability) or `<=` (a loss or a drop).
        low: Smallest bound that makes sense; `high` the largest.
        unit: Unit of estimate and limits.
        argument: Name of the positional argument, `k` or `eps`, if it takes one.
        source: Bound used and its paper.
    """

    at_least: bool
    low: float
    high: float
    unit: str
    argument: str | None
    source: str


_CP = "Clopper-Pearson (1934), exact; betting bound (Waudby-Smith & Ramdas 2024) for per=mean"
_BETTING = "betting bound (Waudby-Smith & Ramdas 2024)"
_SHARE = "share of units"
METRICS: Mapping[str, Metric] = {
    "decision_stability": Metric(True, 0, 1, _SHARE, None, _CP),
    "top_k_stability": Metric(True, 0, 1, _SHARE, "k", _CP),
    "top_k_overlap": Metric(True, 0, 1, "share of the top units", "k", _CP),
    "within_tolerance": Metric(True, 0, 1, _SHARE, "eps", _CP),
    "relative_within": Metric(True, 0, 1, _SHARE, "eps", _CP),
    "snr_db": Metric(True, -100, 300, "dB", None, "delta method on the log ratio of means"),
    "spearman": Metric(True, -1, 1, "rho", None, "influence function, Fisher z (1921)"),
    "accuracy_drop": Metric(
        False, -1, 1, "share of labelled units", None,
        "betting bound on the paired difference (Waudby-Smith & Ramdas 2024)",
    ),
    "auc_drop": Metric(
        False, -1, 1, "AUC", None, "DeLong (1988), clustered as Obuchowski (1997)"
    ),
}  # fmt: skip
# `axis` given: a ranked list in each case, such as what a query finds.
LISTED = Metric(True, 0, 1, "mean share of each case's top", "k", _BETTING)
CUSTOM = Metric(False, 0, 1, "mean loss", None, _BETTING)


def metric_of(name: str) -> Metric:
    """What is known of a metric, or an error that names the nearest known one."""
    if ":" in name:
        return CUSTOM
    if name not in METRICS:
        raise InputError(f"unknown metric {name!r}{nearest(name, METRICS)}")
    return METRICS[name]


@dataclass(frozen=True)
class Clause:
    """One thing that must hold: a metric, its arguments, and a bound.

    Attributes:
        metric: A key of `METRICS`, or `module:function` for a loss of one's own.
        bound: The value to reach (`>=`) or not to exceed (`<=`), as the metric has it.
        output: Name of the output judged; may be left out when there is one.
        per: What makes a group changed: `any` of its rows, the `mean` of its rows, or its
            largest score (`max`).
        k: Size of a top-k set.
        eps: Tolerance of `within_tolerance` (unit `eps_unit`) or `relative_within`.
        cut: Decision threshold on a score; None means argmax, or 0 for a single score.
        column: Column of an (n, columns) output that is the score.
        axis: Class axis; None means 1, and has to be said where an output has three axes. For
            `top_k_overlap` it says that each case ranks what lies along it.
        centred: For `snr_db`, whether the mean output is taken off the signal.
    """

    metric: str
    bound: float
    output: str | None = None
    per: str = "any"
    k: int | None = None
    eps: float | None = None
    eps_unit: str = ""
    cut: float | None = None
    column: int | None = None
    axis: int | None = None
    centred: bool = True

    def __post_init__(self) -> None:
        m = self.kind
        if not (math.isfinite(self.bound) and m.low <= self.bound <= m.high):
            raise InputError(
                f"{self.metric} cannot be bounded by {self.bound}; give {m.low} to {m.high}"
            )
        if self.per not in PER:
            raise InputError(f"per={self.per!r} is unknown; give one of {', '.join(PER)}")
        if self.per == "mean" and m.source not in (_CP, _BETTING):
            raise InputError(f"per=mean does not fit {self.metric}; leave it out or give per=max")
        if m.argument and getattr(self, m.argument) is None:
            raise InputError(f"{self.metric} needs {m.argument}: write {self.metric}(VALUE)")
        if self.k is not None and self.k < 1:
            raise InputError(f"k={self.k} is outside 1 and up; give a whole number from 1")
        if self.eps is not None and not (math.isfinite(self.eps) and self.eps > 0):
            raise InputError(f"eps={self.eps} must be a positive number")
        if self.cut is not None and not math.isfinite(self.cut):
            raise InputError(f"cut={self.cut} must be finite")
        if self.axis == 0:
            raise InputError("axis=0 counts cases; give the axis of the classes, 1 and up")

    @property
    def kind(self) -> Metric:
        """What is known of the metric."""
        return LISTED if self.is_list else metric_of(self.metric)

    @property
    def is_list(self) -> bool:
        """Whether each case has a ranked list of its own, along `axis`."""
        return self.metric == "top_k_overlap" and self.axis is not None

    @property
    def text(self) -> str:
        """The clause as one would write it after `--keep`, in one canonical form.

        >>> parse_clause("top_k_stability( 2, per=mean)>=.9").text
        'top_k_stability(2, per=mean) >= 0.9'
        """
        m, args = self.kind, []
        if m.argument == "k":
            args.append(str(self.k))
        if m.argument == "eps":
            args.append(f"{_plain(self.eps)} {self.eps_unit}".strip())
        for f in fields(self)[2:]:
            value = getattr(self, f.name)
            if f.name not in ("k", "eps", "eps_unit") and value != f.default:
                args.append(f"{f.name}={_plain(value)}")
        inside = f"({', '.join(args)})" if args else ""
        return f"{self.metric}{inside} {'>=' if m.at_least else '<='} {_plain(self.bound)}"

    def values(self, outputs: Outputs) -> Array:
        """The array (n, ...) that this clause looks at."""
        name = self.output
        if name is None:
            if len(outputs) > 1:
                raise InputError(
                    f"the model has the outputs {sorted(outputs)}; say which one "
                    f"{self.metric} is about: output=NAME"
                )
            name = next(iter(outputs))
        if name not in outputs:
            raise InputError(f"no output {name!r}{nearest(name, outputs)}")
        y = outputs[name]
        if self.column is not None:
            if y.ndim != 2 or not 0 <= self.column < y.shape[1]:
                raise InputError(
                    f"column={self.column} is not a column of output {name!r}, shape {y.shape}"
                )
            y = y[:, self.column]
        return y

    def score(self, outputs: Outputs) -> Array:
        """The single score (n,) of each row, for clauses about one score."""
        y = self.values(outputs)
        if y.size != len(y):
            raise InputError(
                f"{self.metric} needs one score a case, output {self.output or ''!r} has shape "
                f"{y.shape}; give column=NUMBER"
            )
        return y.reshape(len(y))

    def is_score(self, outputs: Outputs) -> bool:
        """Whether the decision is a score against a cut rather than an argmax."""
        y = self.values(outputs)
        return not self.is_label(outputs) and (
            self.cut is not None or y.ndim == 1 or y.size == len(y)
        )

    def is_label(self, outputs: Outputs) -> bool:
        """Whether the output is the decision itself: whole numbers without a cut."""
        return self.cut is None and self.values(outputs).dtype.kind in "iub"

    @property
    def class_axis(self) -> int:
        """The axis that holds the classes."""
        return 1 if self.axis is None else self.axis

    def check_axis(self, y: Array) -> None:
        """Raise InputError unless `axis` is an axis of `y` (n, ...) other than that of cases."""
        if self.axis is None and y.ndim == 3:
            raise InputError(
                f"an output of shape {y.shape} may hold its classes along axis 1 or 2; say which: "
                f"{self.metric}(axis=2)"
            )
        axis = self.class_axis
        if not (1 <= axis < y.ndim or -y.ndim < axis < 0):
            raise InputError(
                f"axis={axis} is not a class axis of an output of shape {y.shape}; "
                f"{self.metric} needs one"
            )

    def gate(self, outputs: Outputs) -> Gate | None:
        """The margin that a cascade can defer by, with threshold 0; None if there is none."""
        name = self.output or next(iter(outputs))
        if self.metric == "top_k_stability":
            return Gate(name, "top_k", k=self.k or 1, axis=self.class_axis)
        if self.metric == "top_k_overlap" and not self.is_list:
            top = np.sort(self.score(outputs))[::-1]
            rank = min(self.k or 1, len(top) - 1)
            cut = float((top[rank - 1] + top[rank]) / 2)
            return Gate(name, "cut", cut=cut, column=self.column)
        if self.metric not in ("decision_stability", "accuracy_drop"):
            return None
        if self.is_label(outputs):
            return None
        if self.is_score(outputs):
            return Gate(name, "cut", cut=self.cut or 0.0, column=self.column)
        return Gate(name, "top_k", axis=self.class_axis)


@dataclass(frozen=True)
class Contract:
    """Clauses that must all hold, each at confidence 1 - alpha.

    Attributes:
        clauses: At least one.
        alpha: Allowed probability of a wrong certificate, in (0, 0.5).
        population: The cases' population, as the user states it.
    """

    clauses: tuple[Clause, ...]
    alpha: float = 0.05
    population: str = ""

    def __post_init__(self) -> None:
        if not self.clauses:
            raise InputError('the contract is empty; give --keep "decision_stability >= 0.99"')
        if not 0 < self.alpha < 0.5:
            raise InputError(f"alpha={self.alpha} is outside (0, 0.5); 0.05 means 95 % confidence")
        texts = [c.text for c in self.clauses]
        if len(set(texts)) < len(texts):
            raise InputError(f"a clause is given twice: {max(texts, key=texts.count)}")

    def gate(self, outputs: Outputs) -> Gate | None:
        """The margin of the first clause that has one."""
        gates = (c.gate(outputs) for c in self.clauses)
        return next((g for g in gates if g is not None), None)

    def scaled(self, share: float) -> "Contract":
        """The contract for a sample of `share` the size: a top k becomes as large a share.

        >>> Contract((Clause("top_k_overlap", 0.9, k=100),)).scaled(0.25).clauses[0].k
        25
        """
        clauses = tuple(
            replace(c, k=max(1, round((c.k or 1) * share)))
            if c.metric == "top_k_overlap" and not c.is_list
            else c
            for c in self.clauses
        )
        return replace(self, clauses=clauses) if len(set(clauses)) == len(clauses) else self

    def check(self, outputs: Outputs, labels: Array | None = None) -> None:
        """Raise InputError where a clause does not fit these outputs and labels."""
        for c in self.clauses:
            c.values(outputs)
            if c.metric in ("accuracy_drop", "auc_drop") and labels is None:
                raise InputError(f"{c.metric} needs an array 'labels' in the cases")
            whole = c.metric in ("top_k_overlap", "spearman", "auc_drop") and not c.is_list
            if whole or c.per == "max":
                c.score(outputs)
            decides = c.metric in ("decision_stability", "accuracy_drop")
            argmax = decides and not (c.is_score(outputs) or c.is_label(outputs))
            picks = c.metric == "top_k_stability" or c.is_list
            if argmax or picks:
                c.check_axis(c.values(outputs))
            if picks and c.k is not None:
                size = c.values(outputs).shape[c.class_axis]
                if c.k >= size:
                    raise InputError(
                        f"k={c.k} of {size} values leaves none out, so that nothing could change; "
                        "give a smaller k"
                    )


def _plain(value: object) -> str:
    """A value as text that reads back to the same value."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def nearest(word: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """The end of an error sentence: the nearest known word, and all of them."""
    near = difflib.get_close_matches(word, list(known), 1, 0.5)
    return (f"; did you mean {near[0]!r}?" if near else "") + f" (known: {', '.join(known)})"


_CLAUSE = re.compile(
    r"\s*(?P<metric>[A-Za-z_][\w.]*(?::[A-Za-z_]\w*)?)\s*"
    r"(?:\((?P<args>[^()]*)\))?\s*(?P<op>>=|<=)\s*(?P<bound>[^\s]+)\s*"
)
_EPS = re.compile(r"(?P<eps>[0-9.eE+-]+)\s*(?P<unit>\S.*)?")


def parse_clause(text: str) -> Clause:
    """Read a clause such as `top_k_stability(5, output=logits) >= 0.99`.

    >>> parse_clause("within_tolerance(1 kcal/mol) >= 0.99").eps_unit
    'kcal/mol'
    """
    match = _CLAUSE.fullmatch(text)
    if not match:
        raise InputError(
            f"cannot read the clause {text!r}; write METRIC >= NUMBER or METRIC(ARGUMENT) <= "
            "NUMBER, as in decision_stability >= 0.995"
        )
    entry: dict[str, Any] = {"metric": match["metric"]}
    for part in filter(None, (p.strip() for p in (match["args"] or "").split(","))):
        key, equals, value = (p.strip() for p in part.partition("="))
        if equals:
            if key in entry:
                raise InputError(f"{match['metric']} is given {key!r} twice")
            entry[key] = value
        else:
            kind = metric_of(match["metric"])
            if kind.argument is None or kind.argument in entry:
                raise InputError(f"{match['metric']} does not take {part!r}; write key=value")
            entry[kind.argument] = part
    entry["at_least" if match["op"] == ">=" else "at_most"] = match["bound"]
    return clause_of(entry)


def clause_of(entry: Mapping[str, Any]) -> Clause:
    """Build a clause from keys and values as TOML or `--keep` give them."""
    known = ("metric", "at_least", "at_most", *(f.name for f in fields(Clause)[2:]))
    for key in entry:
        if key not in known:
            raise InputError(f"unknown key {key!r} in a clause{nearest(key, known)}")
    metric = str(entry.get("metric", ""))
    kind = metric_of(metric)
    wanted, other = ("at_least", "at_most") if kind.at_least else ("at_most", "at_least")
    if wanted not in entry or other in entry:
        raise InputError(
            f"{metric} takes {'>=' if kind.at_least else '<='} and a number ({wanted})"
        )
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key in ("k", "eps") and key != kind.argument:
            raise InputError(f"{metric} does not take {key!r}")
        if key not in ("metric", wanted):
            values[key] = _value(key, value, values)
    return Clause(metric, _number(wanted, entry[wanted]), **values)


def _value(key: str, value: Any, values: dict[str, Any]) -> Any:
    if key == "eps" and isinstance(value, str):
        match = _EPS.fullmatch(value.strip())
        if not match:
            raise InputError(f"eps={value!r} is not a number with a unit, as in 1 kcal/mol")
        if match["unit"]:
            values["eps_unit"] = match["unit"].strip()
        return _number("eps", match["eps"])
    if key in ("k", "column", "axis"):
        number = _number(key, value)
        if number != int(number):
            raise InputError(f"{key}={value!r} is not a whole number")
        return int(number)
    if key in ("eps", "cut"):
        return _number(key, value)
    if key == "centred":
        if str(value).lower() not in ("true", "false"):
            raise InputError(f"centred={value!r} is neither true nor false")
        return str(value).lower() == "true"
    if not isinstance(value, str):
        raise InputError(f"{key}={value!r} must be text")
    return value


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool):
        raise InputError(f"{key}={value!r} is not a number")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{key}={value!r} is not a number") from None
    except OverflowError:
        raise InputError(f"{key} is too large a number") from None
    if not math.isfinite(number):
        raise InputError(f"{key}={value!r} must be finite")
    return number


def load_contract(path: Path) -> Contract:
    """Read a contract from TOML: `alpha`, `population`, and `[[keep]]` clauses.

    A contract file is untrusted: it may not name a Python function to run.
    """
    if not path.is_file():
        raise InputError(f"no contract file at {str(path)!r}")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as e:
        raise InputError(f"{path.name} is not TOML: {e}") from e
    for key in table:
        if key not in ("alpha", "population", "keep"):
            known = ("alpha", "population", "keep")
            raise InputError(f"unknown key {key!r} in {path.name}{nearest(key, known)}")
    keep = table.get("keep", [])
    if not isinstance(keep, list) or not all(isinstance(k, dict) for k in keep):
        raise InputError(f"{path.name}: write each clause as a [[keep]] table")
    clauses = tuple(clause_of(k) for k in keep)
    for c in clauses:
        if ":" in c.metric:
            raise InputError(
                f"{path.name} names the Python function {c.metric!r}; a contract file may not "
                "run code, give it with --keep"
            )
    population = table.get("population", "")
    if not isinstance(population, str):
        raise InputError(f"population in {path.name} must be text")
    return Contract(clauses, _number("alpha", table.get("alpha", 0.05)), population)
