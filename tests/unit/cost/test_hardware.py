"""Profiles: their numbers against what vendors say, and the page that shows them."""

import re
from pathlib import Path

import pytest

from justenough.cost.hardware import (
    CHOICES,
    THIS_MACHINE,
    Hardware,
    Rate,
    form,
    profile,
    profiles,
)
from justenough.errors import InputError

PAGE = Path(__file__).parents[3] / "docs" / "hardware.md"
FORMATS = ("fp32", "tf32", "fp16", "bf16", "int8")


def test_the_profiles_that_the_command_line_names_are_there() -> None:
    asked = {"rx580", "vega64", "gtx1060", "rtx3060", "h100", "cpu-avx2", "cpu-avx512-vnni"}
    assert asked <= set(profiles())
    assert all(name == p.name for name, p in profiles().items())


# What vendors and reviewers print, in 1e12 operations a second (two per multiply-add).
@pytest.mark.parametrize(
    ("name", "arithmetic", "tera"),
    [
        ("rx580", "fp32", 6.175),  # thegpucatalog.bhaskarrijal.me, 2,304 lanes at 1,340 MHz
        ("vega64", "fp32", 12.66),  # cputronic.com
        ("vega64", "fp16", 25.33),  # twice that: Rapid Packed Math, AnandTech 11717
        ("gtx1060", "fp32", 4.375),  # cpu-gpu.alldbin.com
        ("gtx1060", "fp16", 0.06836),  # sysrqmts.com, 1:64
        ("rtx3060", "fp32", 12.74),  # 3,584 x 1.777 GHz x 2
        ("rtx3060", "int8", 101.9),  # NVIDIA: 101 tensor TFLOPS with sparsity = int8 dense
        ("h100", "fp32", 66.9),  # the rest: NVIDIA, in glennklockwood.com/garden/processors/h100
        ("h100", "tf32", 494.7),
        ("h100", "fp16", 989.4),
        ("h100", "bf16", 989.4),
        ("h100", "int8", 1978.9),
        ("cpu-avx2", "fp32", 0.4736),  # 4 x 3.7 GHz x 32 FLOP a clock
        ("raspberry-pi-5", "fp32", 0.1536),  # 4 x 2.4 GHz x 16 FLOP a clock
    ],
)
def test_peaks_are_those_that_vendors_print(name: str, arithmetic: str, tera: float) -> None:
    assert 2 * profile(name).rate(arithmetic) / 1e12 == pytest.approx(tera, rel=0.004)


@pytest.mark.parametrize(
    ("name", "channels_bytes", "transfers"),
    [
        ("rx580", 256 / 8, 8e9),
        ("vega64", 2048 / 8, 2 * 945e6),
        ("gtx1060", 192 / 8, 8.008e9),
        ("rtx3060", 192 / 8, 15e9),
        ("cpu-avx2", 2 * 8, 2133.3e6),
        ("cpu-avx512-vnni", 2 * 8, 5200e6),
        ("raspberry-pi-5", 4, 4267e6),
    ],
)
def test_bandwidth_is_width_times_rate(name: str, channels_bytes: float, transfers: float) -> None:
    assert profile(name).bandwidth_bytes_s == pytest.approx(channels_bytes * transfers, rel=0.003)


def test_the_hardwares_truth() -> None:
    """The relations that claims about low precision most often get wrong."""
    polaris, vega, pascal = profile("rx580"), profile("vega64"), profile("gtx1060")
    assert set(polaris.peak) == {"fp32"}
    assert vega.rate("fp16") == 2 * vega.rate("fp32")
    assert "int8" not in vega.peak
    assert pascal.rate("fp16") * 64 == pascal.rate("fp32")
    assert pascal.rate("int8") == 4 * pascal.rate("fp32")
    old, new = profile("cpu-avx2"), profile("cpu-avx512-vnni")
    assert old.rate("int8") == 2 * old.rate("fp32")
    assert new.rate("int8") == 4 * new.rate("fp32")
    assert "fp16" not in old.peak and "bf16" not in old.peak and "fp16" not in new.peak
    assert profile("rtx3060").rate("tf32") == profile("rtx3060").rate("fp32")


@pytest.mark.parametrize("hardware", profiles().values(), ids=list(profiles()))
def test_every_number_and_runtime_has_a_source(hardware: Hardware) -> None:
    said = hardware.sources
    needed = {*hardware.peak, *hardware.supports, "bandwidth", "memory", "launch"}
    absent = {f"no-{a}" for a in ("fp16", "bf16", "int8") if a not in hardware.peak}
    assert needed <= set(said)
    assert set(said) - needed <= absent
    # Where int8 or fp16 does not compute, that has a source of its own.
    assert absent - {"no-bf16"} <= set(said)
    known = re.compile(r"https?://|LLVM|measured|assumed|same table|from memory, not verified")
    for what, line in said.items():
        assert known.search(line), (what, line)


@pytest.mark.parametrize("hardware", profiles().values(), ids=list(profiles()))
def test_profiles_hold_together(hardware: Hardware) -> None:
    assert "fp32" in hardware.peak
    assert set(hardware.peak) <= set(FORMATS)
    for choice, stored in CHOICES.items():
        runs_in = hardware.arithmetic(choice)
        assert runs_in in stored.arithmetic
        assert hardware.rate(runs_in) >= hardware.rate("fp32")
    for choices in hardware.supports.values():
        assert choices[0] == "fp32"
        assert set(choices) <= set(CHOICES)
    assert 1e-7 < hardware.launch_s < 1e-4
    assert hardware.ridge("fp32") * hardware.bandwidth_bytes_s == pytest.approx(
        hardware.rate("fp32")
    )


def test_choices_say_what_they_store_and_compute() -> None:
    assert form("int8").activation_bits == 8
    assert form("int8-dynamic").activation_bits == 32
    for choice, stored in CHOICES.items():
        weight_only = "-weight" in choice
        assert (stored.arithmetic == ("fp32",)) == (weight_only or choice == "fp32")
        if weight_only:
            assert stored.activation_bits == 32 > stored.weight_bits


def test_a_format_that_is_only_stored_computes_in_float32() -> None:
    assert profile("rx580").arithmetic("fp16") == "fp32"
    assert profile("rx580").arithmetic("int8") == "fp32"
    assert profile("gtx1060").arithmetic("fp16") == "fp32"  # it could, 64 times slower
    assert profile("gtx1060").arithmetic("int8") == "int8"
    assert profile("cpu-avx2").arithmetic("bf16") == "fp32"
    assert profile("h100").arithmetic("int4-weight") == "fp32"


def test_part_of_a_processor() -> None:
    two = profile("cpu-avx2").limited_to(2, clock_hz=3e9)
    assert two.peak["int8"] == Rate(2, 32.0, 3e9)
    assert two.bandwidth_bytes_s == profile("cpu-avx2").bandwidth_bytes_s
    assert two.name == "cpu-avx2, 2 of 4 units"
    assert profile("cpu-avx2").limited_to(4).peak == profile("cpu-avx2").peak
    for units in (0, 5):
        with pytest.raises(InputError, match=f"{units} units of cpu-avx2; it has 1 to 4"):
            profile("cpu-avx2").limited_to(units)


def test_unknown_names_say_what_would_do() -> None:
    with pytest.raises(InputError, match=r"no target 'rx5800'; did you mean 'rx580'\? \(known: t"):
        profile("rx5800")
    with pytest.raises(InputError, match="no target 'H100'; did you mean 'h100'"):
        profile("H100")
    with pytest.raises(InputError, match=r"no target '' \(known: this-machine, rx580, "):
        profile("")
    with pytest.raises(InputError, match="target 'this-machine' is measured and has no profile; "):
        profile(THIS_MACHINE)
    with pytest.raises(InputError, match=r"rx580 has no 'int8' arithmetic \(known: fp32\)"):
        profile("rx580").rate("int8")
    with pytest.raises(InputError, match="no choice 'int9'; did you mean 'int8'"):
        profile("rx580").arithmetic("int9")


def test_profiles_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        profile("rx580").peak["int8"] = Rate(1, 1, 1.0)  # type: ignore[index]
    with pytest.raises(TypeError):
        profiles()["mine"] = profile("rx580")  # type: ignore[index]


def row(h: Hardware) -> str:
    """A profile as a row of the page's table."""

    def cell(arithmetic: str) -> str:
        if arithmetic not in h.peak:
            return "-"
        r = h.peak[arithmetic]
        return f"{2 * r.per_s / 1e12:.4g} ({r.units} x {r.lanes:g} x {r.clock_hz / 1e9:g})"

    cells = [
        f"`{h.name}`", *(cell(a) for a in FORMATS), f"{h.bandwidth_bytes_s / 1e9:g}",
        f"{h.memory_bytes / 2**30:g}", f"{h.launch_s * 1e6:g}", f"{2 * h.ridge('fp32'):.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def test_the_page_shows_these_numbers() -> None:
    page = PAGE.read_text(encoding="utf-8")
    wanted = [row(h) for h in profiles().values()]
    shown = re.findall(r"^\| `[\w-]+` (?:\| [^|]*){9}\|$", page, re.MULTILINE)
    assert shown == wanted, "the table should read:\n" + "\n".join(wanted)


def test_the_page_shows_every_source_and_choice() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for h in profiles().values():
        assert f"\n### `{h.name}`: {h.description}\n" in page
        for what, line in h.sources.items():
            assert f"\n- {what}: {line}\n" in page, f"- {what}: {line}"
        for runtime, choices in h.supports.items():
            assert f"\n- {runtime} runs: {', '.join(choices)}\n" in page
    for choice, f in CHOICES.items():
        cells = (f.weight_bits, f.activation_bits, ", else ".join(f.arithmetic))
        assert f"| `{choice}` | {cells[0]} | {cells[1]} | {cells[2]} |" in page
