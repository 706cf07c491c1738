"""Contracts: what is read, what is written back, and every refusal."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from justenough.core.contract import (
    METRICS,
    Clause,
    Contract,
    clause_of,
    load_contract,
    metric_of,
    parse_clause,
)
from justenough.errors import InputError

Y = {"y": np.zeros((5, 3))}


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("decision_stability >= 0.995", Clause("decision_stability", 0.995)),
        ("top_k_stability(5, output=logits)>=.99", Clause("top_k_stability", 0.99, "logits", k=5)),
        (
            "within_tolerance(1 kcal/mol, per=mean) >= 0.99",
            Clause("within_tolerance", 0.99, per="mean", eps=1.0, eps_unit="kcal/mol"),
        ),
        ("relative_within(1e-3) >= 0.9", Clause("relative_within", 0.9, eps=0.001)),
        ("snr_db(centred=false) >= 40", Clause("snr_db", 40.0, centred=False)),
        ("accuracy_drop(column=1, cut=0.5) <= 0.01",
         Clause("accuracy_drop", 0.01, column=1, cut=0.5)),
        ("spearman(per=max) >= -0.5", Clause("spearman", -0.5, per="max")),
        ("my.module:loss(per=mean) <= 0.1", Clause("my.module:loss", 0.1, per="mean")),
    ],
)  # fmt: skip
def test_a_clause_reads_and_writes_back(text: str, clause: Clause) -> None:
    assert parse_clause(text) == clause
    assert parse_clause(clause.text) == clause


@pytest.mark.parametrize("eps", [0.1234567890123, 1e-9, 1.0])
def test_a_clause_keeps_every_digit(eps: float) -> None:
    clause = Clause("within_tolerance", 0.9, eps=eps, cut=None)
    assert parse_clause(clause.text).eps == eps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decision_stabilty >= 0.9", "unknown metric 'decision_stabilty'; did you mean "
         "'decision_stability'"),
        ("zzz >= 0.9", r"unknown metric 'zzz' \(known: decision_stability, "),
        ("decision_stability > 0.9", "cannot read the clause 'decision_stability > 0.9'; write"),
        ("", "cannot read the clause ''"),
        ("decision_stability <= 0.9", r"decision_stability takes >= and a number \(at_least\)"),
        ("auc_drop >= 0.1", r"auc_drop takes <= and a number \(at_most\)"),
        ("decision_stability >= 1.1", "cannot be bounded by 1.1; give 0 to 1"),
        ("spearman >= -2", "cannot be bounded by -2.0; give -1 to 1"),
        ("my:loss <= 2", "my:loss cannot be bounded by 2.0; give 0 to 1"),
        ("decision_stability >= many", "at_least='many' is not a number"),
        ("decision_stability >= nan", "at_least='nan' must be finite"),
        ("decision_stability(3) >= 0.9", "decision_stability does not take '3'; write key=value"),
        ("top_k_stability(3, 4) >= 0.9", "top_k_stability does not take '4'; write key=value"),
        ("top_k_stability >= 0.9", r"top_k_stability needs k: write top_k_stability\(VALUE\)"),
        ("within_tolerance >= 0.9", "within_tolerance needs eps"),
        ("top_k_stability(0) >= 0.9", "k=0 is outside 1 and up; give a whole number from 1"),
        ("top_k_stability(1.5) >= 0.9", "k='1.5' is not a whole number"),
        ("within_tolerance(0) >= 0.9", "eps=0.0 must be a positive number"),
        ("within_tolerance(kcal) >= 0.9", "eps='kcal' is not a number with a unit, as in 1 kcal"),
        ("within_tolerance(1.2.3) >= 0.9", "eps='1.2.3' is not a number"),
        ("decision_stability(per=median) >= 0.9", "per='median' is unknown; give one of any"),
        ("snr_db(per=mean) >= 30", "per=mean does not fit snr_db; leave it out or give per=max"),
        ("snr_db(centred=perhaps) >= 30", "centred='perhaps' is neither true nor false"),
        ("decision_stability(colum=1) >= 0.9", "unknown key 'colum' in a clause; did you mean "
         "'column'"),
        ("decision_stability(axis=0) >= 0.9", "axis=0 counts cases; give the axis of the classes"),
        ("decision_stability(cut=inf) >= 0.9", "cut='inf' must be finite"),
        ("decision_stability(cut=) >= 0.9", "cut='' is not a number"),
    ],
)  # fmt: skip
def test_refusals_say_what_would_do(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_clause(text)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"metric": "decision_stability"}, "takes >= and a number"),
        ({"metric": "decision_stability", "at_least": 0.9, "at_most": 1}, "takes >= and a number"),
        ({"metric": "decision_stability", "at_least": True}, "at_least=True is not a number"),
        ({"metric": "decision_stability", "at_least": 0.9, "per": 3}, "per=3 must be text"),
        ({"metric": "top_k_stability", "at_least": 0.9, "k": [1]}, r"k=\[1\] is not a number"),
        ({}, "unknown metric ''"),
    ],
)
def test_tables_are_checked_like_text(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        clause_of(entry)


def test_a_cut_given_in_python_is_finite_too() -> None:
    with pytest.raises(InputError, match="cut=nan must be finite"):
        Clause("decision_stability", 0.9, cut=math.nan)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, -0.1, math.nan])
def test_alpha_lies_between_0_and_a_half(alpha: float) -> None:
    with pytest.raises(InputError, match=r"is outside \(0, 0.5\); 0.05 means 95 % confidence"):
        Contract((Clause("decision_stability", 0.9),), alpha)


def test_a_contract_has_clauses_and_none_twice() -> None:
    with pytest.raises(InputError, match="the contract is empty; give --keep"):
        Contract(())
    one = parse_clause("decision_stability >= 0.9")
    with pytest.raises(InputError, match=r"a clause is given twice: decision_stability >= 0.9"):
        Contract((one, parse_clause("decision_stability(per=any)>=.90")))
    Contract((one, parse_clause("decision_stability >= 0.91")))


def test_several_outputs_must_be_told_apart() -> None:
    two = {"logits": np.zeros((5, 3)), "mask": np.zeros((5, 4))}
    with pytest.raises(InputError, match=r"has the outputs \['logits', 'mask'\]; say which one"):
        Contract((Clause("decision_stability", 0.9),)).check(two)
    with pytest.raises(InputError, match="no output 'logit'; did you mean 'logits'"):
        Clause("decision_stability", 0.9, output="logit").values(two)
    Contract((Clause("decision_stability", 0.9, output="mask"),)).check(two)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("decision_stability(column=3) >= 0.9", r"column=3 is not a column of output 'y', shape"),
        ("decision_stability(column=-1) >= 0.9", "column=-1 is not a column"),
        ("spearman >= 0.9", r"spearman needs one score a case, output '' has shape \(5, 3\); "
         "give column=NUMBER"),
        ("decision_stability(per=max) >= 0.9", "needs one score a case"),
        ("decision_stability(axis=2) >= 0.9", r"axis=2 is not a class axis of an output of shape"),
        ("top_k_stability(1, axis=-2) >= 0.9", "axis=-2 is not a class axis"),
    ],
)  # fmt: skip
def test_a_clause_that_does_not_fit_the_outputs(keep: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Contract((parse_clause(keep),)).check(Y)


def test_what_decides() -> None:
    clause = Clause("decision_stability", 0.9)
    scores: dict[str, Any] = {"y": np.zeros((5, 1))}
    assert clause.is_score(scores)
    assert not clause.is_score(Y)
    assert Clause("decision_stability", 0.9, cut=0.5).is_score(Y)
    assert Clause("decision_stability", 0.9, column=1).is_score(Y)
    whole = {"y": np.zeros((5, 1), np.int64)}
    assert clause.is_label(whole)
    assert not clause.is_score(whole)
    assert Clause("decision_stability", 0.9, cut=1).is_score(whole)


def test_gates_of_clauses() -> None:
    gate = Clause("decision_stability", 0.9).gate(Y)
    assert gate is not None
    assert (gate.kind, gate.k, gate.threshold) == ("top_k", 1, 0.0)
    gate = Clause("top_k_stability", 0.9, k=2).gate(Y)
    assert gate is not None
    assert gate.k == 2
    gate = Clause("accuracy_drop", 0.1, cut=0.25, column=1).gate(Y)
    assert gate is not None
    assert (gate.kind, gate.cut, gate.column) == ("cut", 0.25, 1)
    gate = Clause("top_k_overlap", 0.9, k=2).gate({"y": np.array([5.0, 1.0, 4.0, 2.0])})
    assert gate is not None
    assert gate.cut == 3.0
    assert Clause("decision_stability", 0.9).gate({"y": np.zeros((5, 1), np.int64)}) is None
    assert Clause("snr_db", 30).gate(Y) is None
    both = Contract((Clause("snr_db", 30), Clause("decision_stability", 0.9)))
    assert both.gate(Y) is not None
    assert Contract((Clause("snr_db", 30),)).gate(Y) is None


def test_metric_of_a_function_is_a_mean_loss() -> None:
    assert not metric_of("a.b:c").at_least
    assert all(m.low < m.high for m in METRICS.values())


# TOML


def _load(folder: Path, text: str) -> Contract:
    path = folder / "contract.toml"
    path.write_text(text, encoding="utf-8")
    return load_contract(path)


def test_toml_says_the_same_as_keep(tmp_path: Path) -> None:
    got = _load(
        tmp_path,
        'alpha = 0.01\npopulation = "screening, 2024"\n'
        '[[keep]]\nmetric = "top_k_stability"\nk = 5\nat_least = 0.99\n'
        '[[keep]]\nmetric = "within_tolerance"\neps = "1 kcal/mol"\nat_least = 0.9\n',
    )
    clauses = tuple(
        map(parse_clause, ["top_k_stability(5) >= 0.99", "within_tolerance(1 kcal/mol) >= 0.9"])
    )
    assert got == Contract(clauses, 0.01, "screening, 2024")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keep = [", "contract.toml is not TOML: "),
        ("alfa = 0.1", "unknown key 'alfa' in contract.toml; did you mean 'alpha'"),
        ("keep = 3", r"contract.toml: write each clause as a \[\[keep\]\] table"),
        ("", "the contract is empty"),
        ('[[keep]]\nmetric = "os:system"\nat_most = 0.1',
         "contract.toml names the Python function 'os:system'; a contract file may not run code"),
        ('population = 3\n[[keep]]\nmetric = "snr_db"\nat_least = 30', "population in .* be text"),
        ('alpha = "x"\n[[keep]]\nmetric = "snr_db"\nat_least = 30', "alpha='x' is not a number"),
        ('[[keep]]\nmetric = "snr_db"\nat_leest = 30', "unknown key 'at_leest'.*mean 'at_least'"),
    ],
)  # fmt: skip
def test_toml_refusals(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _load(tmp_path, text)
    with pytest.raises(InputError, match="no contract file at "):
        load_contract(tmp_path / "none.toml")
