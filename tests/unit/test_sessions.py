from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx.parser import parse_model

from justenough.core.subject import ONNXRUNTIME, RUNTIMES, Runtime
from justenough.errors import InputError
from justenough.subjects.onnx_model import OnnxModel
from justenough.subjects.processor import cpu_flags, processor
from justenough.subjects.sessions import described, first_line, missing_part, open_session

Array = NDArray[Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    made = parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,2] x) => (float[N,2] y) { y = Neg(x) }'
    )
    onnx.save(made, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_onnx_runtime_is_the_usual(model: Path) -> None:
    session = open_session(model)
    assert isinstance(session, ort.InferenceSession)
    assert session.run(None, {"x": np.ones((3, 2), np.float32)})[0].tolist() == [[-1, -1]] * 3


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        (Runtime(precision="bf16"), "ONNX Runtime computes a file as it is written, not in bf16"),
        (Runtime(precision="fp16"), "not in fp16; name it without a precision"),
        (Runtime(device="vulkan"), "ONNX Runtime here has no provider for 'vulkan'; it has: cpu"),
        (Runtime(device="cuda"), "ONNX Runtime here has no provider for 'cuda'; it has: cpu"),
        (Runtime("openvino", device="cuda"), "OpenVINO is used on the cpu here, not on 'cuda'"),
    ],
)
def test_what_would_be_ignored_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch, runtime: Runtime, said: str
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError) as e:
        open_session(model, runtime)
    assert said in str(e.value)
    with pytest.raises(InputError):
        OnnxModel(model, runtime=runtime).run({"x": np.ones((3, 2), np.float32)})


@pytest.mark.parametrize(("name", "extra"), [("openvino", "openvino"), ("ncnn", "vulkan")])
def test_a_runtime_that_is_not_installed_names_its_extra(
    model: Path, monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    said = f"{name} is not installed; install justenough[{extra}] to use it"
    assert missing_part(Runtime(name)) == said
    with pytest.raises(InputError) as e:
        open_session(model, Runtime(name))
    assert str(e.value) == said
    assert missing_part(ONNXRUNTIME) == ""


def test_no_runtime_loads_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    for name in RUNTIMES:
        if missing_part(Runtime(name)):  # an extra that need not be here
            continue
        with pytest.raises(InputError) as e:
            open_session(tmp_path / "m.onnx", Runtime(name))
        assert "\n" not in str(e.value) and "m.onnx" in str(e.value)
        with pytest.raises(InputError):
            open_session(tmp_path / "gone.onnx", Runtime(name))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError(""), "RuntimeError"),
        (ValueError(" one \ntwo"), "one"),
        (RuntimeError("[ONNXRuntimeError] : 1 : FAIL : no kernel"), "no kernel"),
        (
            RuntimeError("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from /a/b.onnx "
                         "failed: Protobuf parsing failed."),
            "Protobuf parsing failed.",
        ),
        (RuntimeError("x" * 900), "x" * 300),
    ],
)  # fmt: skip
def test_the_first_line_of_an_error(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_a_certificate_says_what_ran() -> None:
    got = described(ONNXRUNTIME)
    assert got == {
        "name": "onnxruntime", "precision": "fp32", "device": "cpu", "version": ort.__version__,
        "provider": "CPUExecutionProvider",
    }  # fmt: skip


def test_a_certificate_says_the_version_of_another_runtime() -> None:
    ov = pytest.importorskip("openvino")
    got = described(Runtime("openvino", "bf16"))
    assert got["precision"] == "bf16" and ov.__version__.startswith(got["version"])


def test_the_processor_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = {
        "x86": "processor : 0\nmodel name\t: A CPU \nflags\t\t: fpu sse4_2 avx512_vnni fma\n",
        "arm": "processor : 0\nFeatures\t: fp asimd i8mm bf16\n",
        "none": "",
    }
    now = "x86"
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    monkeypatch.setattr(Path, "read_text", lambda _: text[now])
    assert (cpu_flags(), processor()) == (["avx512_vnni", "fma", "sse4_2"], "A CPU")
    now = "arm"
    assert cpu_flags() == ["asimd", "bf16", "i8mm"] and processor()
    now = "none"
    assert cpu_flags() == []
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    assert cpu_flags() == [] and processor()
