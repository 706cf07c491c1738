"""Families: what each can do at a site, and which are left when sites are pinned."""

import pytest

from justenough.core.subject import ONNXRUNTIME, Runtime
from justenough.errors import InputError
from justenough.search.families import Family, with_pins, worth_searching

FULL = Family(ONNXRUNTIME, "full", 4)
HALF = [Family(Runtime("openvino", "bf16"), form, 3) for form in ("plain", "nncf", "inputs")]
WIDE = [Family(Runtime("openvino"), form, 3) for form in ("plain", "nncf", "inputs")]
LOCAL = {"a": ("fp32", "int8", "int4-weight"), "b": ("fp32", "int8")}


def test_what_is_pinned_leaves_the_families_that_can_do_it() -> None:
    assert with_pins([FULL, *HALF], (), LOCAL) == ([FULL, *HALF], [])
    kept, notes = with_pins([FULL, *HALF], (("a", "fp32"),), LOCAL)
    assert kept == [FULL], "bf16 is not fp32"
    assert notes[0].startswith("openvino bf16 nncf was left out: it cannot run a in fp32")
    kept, notes = with_pins([FULL, *HALF], (("b", "bf16"),), LOCAL)
    assert kept == HALF
    assert notes == ["onnxruntime full was left out: it cannot run b in bf16 as pinned"]
    assert with_pins([FULL, *WIDE], (("a", "fp32"),), LOCAL) == ([FULL, *WIDE], [])
    assert with_pins([FULL, *HALF], (("a", "int8"),), LOCAL)[0] == [FULL, *HALF[1:]]
    assert with_pins([FULL, *HALF], (("a", "int4-weight"),), LOCAL)[0] == [FULL]


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        ([("c", "int8")], "site 'c' that the model does not have; its sites are: a, b"),
        ([("a", "int9")], "'int9'; it has: fp32, int8, int4-weight, bf16"),
        ([("b", "int4-weight")], "site 'b' the choice 'int4-weight'; it has: fp32, int8, bf16"),
        ([("a", "int8"), ("a", "fp32")], "site 'a' both 'int8' and 'fp32'; give one"),
        ([("a", "int4-weight"), ("b", "bf16")], "all of the pins a=int4-weight, b=bf16"),
    ],
)
def test_a_pin_that_cannot_be_is_named(pins: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(InputError) as e:
        with_pins([FULL, *HALF], pins, LOCAL)
    assert words in str(e.value)


def test_bytes_are_searched_where_time_would_give_up() -> None:
    found, slow = [FULL, *WIDE], {f.name: 3.0 for f in (FULL, *WIDE)}
    assert worth_searching(found, slow, 1.0) == []
    assert worth_searching(found, slow, 1.0, "bytes") == [FULL]
    assert worth_searching(WIDE, slow, 1.0, "bytes") == WIDE[1:]
