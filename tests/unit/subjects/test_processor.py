import platform

import pytest

from justenough.subjects import processor


@pytest.mark.parametrize(
    ("machine", "flags", "wraps"),
    [
        ("x86_64", ["avx2", "fma"], True),
        ("AMD64", ["avx2", "avx512f"], True),
        ("x86_64", ["avx2", "avx512_vnni"], False),
        ("x86_64", ["avx2", "avx_vnni"], False),
        ("x86_64", ["amx_int8"], False),
        ("aarch64", ["asimd"], False),
    ],
)
def test_x86_before_vnni_adds_in_16_bits(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: list[str], wraps: bool
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(processor, "cpu_flags", lambda: flags)
    assert processor.adds_in_16_bits() is wraps
