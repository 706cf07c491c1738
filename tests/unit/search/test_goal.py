import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.core.subject import Variant
from justenough.cost.hardware import profiles
from justenough.errors import DataReuseError, InputError
from justenough.search.goal import OBJECTIVES, Given, Goal, pin_in, seconds_in
from justenough.search.workers import MOST_WORKERS, open_workers


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"minimise": "speed"}, "cannot minimise 'speed'; it is one of latency, bytes, energy-"),
        ({"minimise": ""}, "cannot minimise ''"),
        ({"target": "rx58"}, "rx58"),
        ({"runtimes": ()}, "runtimes none: known are onnxruntime, openvino, ncnn"),
        ({"runtimes": ("openvino", "tvm")}, "runtimes openvino, tvm: known are"),
        ({"budget_s": -1.0}, "a budget of -1 s is no time"),
        ({"budget_s": float("nan")}, "a budget of nan s is no time"),
        ({"pins": (("a", "int8"), ("b", "fp32"), ("a", "fp32"))}, "site 'a' is pinned twice"),
        ({"workers": "0"}, "workers='0' would have to be a number of processes"),
        ({"workers": "-1"}, "workers='-1'"),
        ({"workers": "two"}, "workers='two'"),
        ({"workers": ""}, "workers=''"),
        ({"workers": "rayon"}, "workers='rayon'"),
        ({"workers": "2\n"}, "workers='2"),
        ({"workers": "٢"}, "workers='٢'"),
    ],
)
def test_what_is_no_goal_is_one_sentence(entries: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        Goal(**entries)  # type: ignore[arg-type]


@pytest.mark.parametrize("minimise", OBJECTIVES)
@pytest.mark.parametrize("target", ["this-machine", *profiles()])
def test_every_objective_goes_with_every_target(minimise: str, target: str) -> None:
    assert Goal(minimise, target).target == target


@pytest.mark.parametrize("spec", ["0", "two", "", "-1", "٢", "257", "9999999"])
def test_what_the_goal_takes_the_workers_take(spec: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        open_workers(spec, folder=tmp_path)
    with pytest.raises(InputError):
        Goal(workers=spec)
    assert Goal(workers=str(MOST_WORKERS)).workers == str(MOST_WORKERS)
    assert Goal(workers="ray").workers == "ray"
    assert Goal(workers="ray://host:10001").workers == "ray://host:10001"


def test_identity_is_of_what_makes_results_differ() -> None:
    plain = Goal().identity
    assert Goal(budget_s=3.0).identity == plain
    assert Goal(workers="2").identity == plain
    others = [
        Goal("bytes"), Goal(target="rx580"), Goal(runtimes=("onnxruntime",)), Goal(curve=True),
        Goal(pins=(("a", "fp32"),)), Goal(given=Given(Variant())),
        Goal(given=Given(Variant((("a", "int8"),)))),
    ]  # fmt: skip
    assert len({plain, *(g.identity for g in others)}) == len(others) + 1


@given(st.floats(0, 1e6).map(lambda s: round(s, 3)), st.sampled_from(["s", "m", "h", ""]))
def test_seconds_are_in_their_unit(value: float, unit: str) -> None:
    text = f"{value:.3f}{unit}"
    scale = {"s": 1, "m": 60, "h": 3600, "": 1}[unit]
    assert seconds_in(text) == pytest.approx(value * scale)
    assert seconds_in(f" {text} ") == seconds_in(text)
    assert Goal(budget_s=seconds_in(text)).budget_s == seconds_in(text)


@given(st.text(max_size=12))
def test_any_text_is_a_time_or_one_sentence(text: str) -> None:
    try:
        assert seconds_in(text) >= 0
    except InputError as e:
        assert str(e) == f"{text!r} is no time; give it as 90s, 10m or 1.5h"


@pytest.mark.parametrize("text", ["", "s", "-3s", "1d", "1h30m", "1e3", "nan", "inf", "1.", ".5"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InputError, match="is no time"):
        seconds_in(text)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="="), min_size=1).filter(
        str.strip
    ),
)
def test_a_pin_splits_at_the_last_equals_sign(site: str, choice: str) -> None:
    assert pin_in(f"{site}={choice}") == (site.strip(), choice.strip())


@pytest.mark.parametrize("text", ["", "=", "a=", "=int8", "a", " = ", "a= ", " =int8"])
def test_what_is_no_pin(text: str) -> None:
    with pytest.raises(InputError, match="is no pin; give it as SITE=CHOICE"):
        pin_in(text)


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("cases", ["", "these", "those"])
def test_only_an_edit_after_these_very_cases_is_refused(edited: bool, cases: str) -> None:
    given = Given(Variant(), edited=edited, cases=cases)
    if edited and cases == "these":
        with pytest.raises(DataReuseError, match="give others with --certify-cases"):
            given.check_fresh("these")
    else:
        given.check_fresh("these")
    Given(Variant(), edited=edited).check_fresh("")
