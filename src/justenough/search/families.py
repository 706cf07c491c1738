"""Families of variants: one runtime, one way of placing int8, one profile each."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from justenough.core.subject import FORMS, FP32, INT8, ONNXRUNTIME, Runtime, Variant
from justenough.errors import InputError
from justenough.search.program import Program, additive_program
from justenough.subjects.quantize import CALIBRATIONS, NARROW
from justenough.subjects.sessions import devices, missing_part

HEADROOM = 1.35


@dataclass(frozen=True)
class Family:
    """Variants that share a runtime and a form.

    Attributes:
        runtime: What runs them.
        form: As in `Variant`; `plain` for the runtime's own precision alone.
        most: Variants to propose, the boldest included.
    """

    runtime: Runtime
    form: str
    most: int

    @property
    def name(self) -> str:
        """Short name for the store and the report."""
        return f"{self.runtime} {self.form}"

    def variant(self, picks: Mapping[str, str], calibration: str) -> Variant:
        """A variant of this family."""
        return Variant.of(picks, calibration, self.runtime, self.form)

    def choices(self, local: Sequence[str]) -> tuple[str, ...]:
        """Choices at a site: `local` has those of ONNX Runtime's own files, fp32 first."""
        if self.form == "full":
            return tuple(local)
        usual = self.runtime.precision
        return (usual,) if self.form == "plain" else (usual, INT8.name)


def families(runtimes: tuple[str, ...]) -> tuple[list[Family], list[str]]:
    """The families to search here, and why runtimes that were asked for are left out."""
    out: list[Family] = []
    notes: list[str] = []
    if "onnxruntime" in runtimes:
        out += [Family(ONNXRUNTIME, "full", 4), Family(ONNXRUNTIME, "whole", 3)]
        out += [Family(Runtime("onnxruntime", device=d), "plain", 1) for d in devices()]
    if "openvino" in runtimes:
        missing = missing_part(Runtime("openvino"))
        if missing:
            if platform.machine().lower() in ("x86_64", "amd64"):
                notes.append(f"{missing}: on x86 it brings bf16, and int8 often faster")
        else:
            out += _openvino()
    if "ncnn" in runtimes:
        missing = missing_part(Runtime("ncnn"))
        if missing:
            notes.append(missing)
        else:
            out += _ncnn()
    return out, notes


def with_pins(
    found: Sequence[Family],
    pins: Sequence[tuple[str, str]],
    local: Mapping[str, Sequence[str]],
) -> tuple[list[Family], list[str]]:
    """The families that can do what is pinned, and why others are left out.

    Args:
        found: Families.
        pins: Site and choice.
        local: Choices by site in ONNX Runtime, fp32 first.

    Raises:
        InputError: A pin names a site or a choice that does not exist, a site is pinned twice,
            or no family can do all that is pinned.
    """
    settled: dict[str, str] = {}
    for site, choice in pins:
        if site not in local:
            raise InputError(
                f"a pin names a site {site!r} that the model does not have; its sites are: "
                f"{', '.join(local) or 'none'}"
            )
        known = dict.fromkeys(c for f in found for c in f.choices(local[site]))
        if choice not in known:
            raise InputError(
                f"a pin gives site {site!r} the choice {choice!r}; it has: "
                f"{', '.join(known) or FP32.name}"
            )
        if settled.setdefault(site, choice) != choice:
            raise InputError(
                f"pins give site {site!r} both {settled[site]!r} and {choice!r}; give one"
            )
    out, notes = [], []
    for f in found:
        unfit = next((s for s, c in settled.items() if c not in f.choices(local[s])), None)
        if unfit is None:
            out.append(f)
        elif f.form != "plain":
            notes.append(
                f"{f.name} was left out: it cannot run {unfit} in {settled[unfit]} as pinned"
            )
    if found and not out:
        said = ", ".join(f"{s}={c}" for s, c in settled.items())
        raise InputError(f"no runtime that may be deployed can do all of the pins {said}")
    return out, notes


def check_variant(variant: Variant, local: Mapping[str, Sequence[str]]) -> None:
    """Refuse a variant with a site or a choice that is not there.

    Args:
        variant: What was given.
        local: Choices by site in ONNX Runtime, fp32 first.

    Raises:
        InputError: It names one, or a calibration or a form that is not there.
    """
    known_here = [c + n for c in CALIBRATIONS for n in ("", NARROW)]
    if variant.calibration not in known_here:
        raise InputError(
            f"the variant names a calibration {variant.calibration!r}; there are: "
            f"{', '.join(known_here)}"
        )
    if variant.form not in FORMS:
        raise InputError(
            f"the variant names a form {variant.form!r}; there are: {', '.join(FORMS)}"
        )
    family = Family(variant.runtime, variant.form, 1)
    for site, choice in variant.picks:
        if site not in local:
            raise InputError(f"the variant names a site {site!r} that the model does not have")
        if choice not in (known := family.choices(local[site])):
            raise InputError(f"site {site!r} has no choice {choice!r}; it has: {', '.join(known)}")


def _openvino() -> list[Family]:
    from justenough.subjects.openvino_session import precisions

    precision = "bf16" if "bf16" in precisions() else "fp32"
    runtime = Runtime("openvino", precision)
    out = [Family(runtime, form, 3) for form in ("nncf", "inputs")]
    return [Family(runtime, "plain", 1), *out]


def _ncnn() -> list[Family]:
    from justenough.subjects.ncnn_session import vulkan_devices

    device = "vulkan" if vulkan_devices() else "cpu"
    return [Family(Runtime("ncnn", p, device), "plain", 1) for p in ("fp32", "fp16")]


def worth_searching(
    found: list[Family],
    boldest_s: Mapping[str, float],
    reference_s: float,
    minimise: str = "latency",
) -> list[Family]:
    """The families whose mixtures may yet be the fastest, from the time of each one's boldest.

    A mixture beats its own all-int8 file only where single sites are slower in int8, by a
    third in what was measured (docs/log.md); what is safe and faster than that ends the matter.
    Bytes are the same however slow a file is, and only ONNX Runtime's goes below 8 bits.

    Args:
        found: Families.
        boldest_s: Measured seconds per case of each family's boldest variant, by name; a
            family that could not be built is not there.
        reference_s: Seconds per case of the reference.
        minimise: What is made small, as in `Goal`.
    """
    if minimise == "bytes":
        mixed = [f for f in found if f.name in boldest_s and f.form != "plain"]
        return [f for f in mixed if f.form == "full"] or mixed
    times = [s for s in boldest_s.values() if s]
    safe = min([boldest_s[f.name] for f in found if f.form == "plain" and f.name in boldest_s]
               + [reference_s])  # fmt: skip
    best = min([*times, safe])
    out = []
    for f in found:
        if f.form == "plain" or f.name not in boldest_s:
            continue
        # Only ONNX Runtime converts at every border, so that fewer int8 sites can be faster.
        room = HEADROOM if f.form in ("full", "whole") else 1.0
        if boldest_s[f.name] < min(room * safe, HEADROOM * best):
            out.append(f)
    return out


def site_program(
    floating: Mapping[str, float], int8: Mapping[str, float], total_s: float
) -> Program:
    """The program of a runtime that does its own conversions: each site's gain adds.

    Args:
        floating: Seconds per call of each site in the runtime's precision; `int8` the same.
        int8: In int8.
        total_s: Seconds per call with no site in int8.
    """
    return additive_program({(s, "int8"): int8[s] - floating[s] for s in floating}, total_s)
