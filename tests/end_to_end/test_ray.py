"""Jobs on a local Ray cluster. Ray runs in processes of its own: it warns, forks and prints."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import numpy_helper as nh
from onnx.parser import parse_model

from justenough.errors import InputError
from justenough.search import ray_workers
from justenough.search.workers import Failed, InProcess, Job, Workers, open_workers
from justenough.subjects.onnx_model import OnnxModel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]
RUN = "justenough.subjects.onnx_model:OnnxModel.run"
VECTOR = "justenough.stats.checks:finite_vector"


class Late:
    """A value that is computed where it is unpickled: what a job does to its process."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return eval, (self.code,)


class Slow(OnnxModel):
    """The model after a moment in which its process can be found by `pid-...` and killed."""

    def __reduce__(self) -> Any:
        folder = str(self.path.parent)
        return eval, (
            "("
            f"__import__('pathlib').Path({folder!r}, f\"pid-{{__import__('os').getpid()}}\")"
            ".touch(), __import__('time').sleep(0.3), "
            "__import__('justenough.subjects.onnx_model', fromlist=['x']).OnnxModel("
            f"__import__('pathlib').Path({str(self.path)!r}), 1, 8))[2]",
        )


def network(path: Path) -> None:
    rng = np.random.default_rng(0)
    model = parse_model(
        '<ir_version: 8, opset_import: ["": 17]> '
        "g (float[n,16] x) => (float[n,4] y) { h = MatMul(x, a)\nr = Relu(h)\ny = MatMul(r, b) }"
    )
    for name, shape in (("a", (16, 64)), ("b", (64, 4))):
        model.graph.initializer.append(nh.from_array(rng.normal(size=shape).astype("f"), name))
    onnx.save(model, path)


def answers(workers: Workers, folder: Path, *, kill: bool = False) -> dict[str, str]:
    """Bits of ten answers; after the first, a process that has a job is killed."""
    rows = np.random.default_rng(1).normal(size=(64, 16)).astype("f")
    made = Slow if kill else OnnxModel
    jobs = [
        Job(str(k), RUN, {"self": made(folder / "m.onnx", 1, 8), "inputs": {"x": rows}})
        for k in range(10)
    ]
    workers.share(rows)
    found = {}
    for name, value in workers.map(jobs):
        found[name] = value["y"].tobytes().hex() if isinstance(value, dict) else str(value)
        if kill and len(found) == 1:
            time.sleep(0.15)  # the next jobs are under way
            os.kill(int(next(folder.glob("pid-*")).name[4:]), 9)
    return found


def scene_kill(folder: Path) -> dict[str, Any]:
    """A worker process dies on a cluster of two."""
    with open_workers("ray") as workers:
        found = answers(workers, folder, kill=True)
        pids = len(list(folder.glob("pid-*")))
        return {"found": found, "pids": pids, "again": answers(workers, folder)}


def scene_node(folder: Path) -> dict[str, Any]:
    """A machine with its worker goes; `ray://` where the client is installed."""
    from ray.cluster_utils import Cluster  # type: ignore[import-untyped,unused-ignore]

    client = importlib.util.find_spec("grpc") is not None
    port = {"ray_client_server_port": 23999} if client else {}
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **port})
    other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = cluster.address
    out: dict[str, Any] = {"client": client}
    with open_workers("ray://127.0.0.1:23999" if client else "ray") as workers:
        jobs = [Job(str(k), VECTOR, {"name": "x", "values": Late(SLEEP)}) for k in range(8)]
        for name, value in workers.map(jobs):
            out[name] = str(value)
            if other is not None:
                cluster.remove_node(other, allow_graceful=False)
                other = None
    cluster.shutdown()
    return out


SLEEP = "__import__('time').sleep(0.5) or [1.0]"


def scene_failures(folder: Path) -> dict[str, Any]:
    """Every kind of failure, a version that differs, and a worker too wide for the machine."""
    values: dict[str, Any] = {
        "fine": [1.0],
        "nan": np.array([np.nan]),
        "zero": Late("1 / 0"),
        "exit": Late("__import__('os')._exit(3)"),
        "slow": Late("__import__('time').sleep(100)"),
        "unsent": lambda: 0,
        "threads": Late("[float(__import__('os').environ['OMP_NUM_THREADS'])]"),
    }
    jobs = [Job(k, VECTOR, {"name": "x", "values": v}) for k, v in values.items()]
    with open_workers("ray") as workers:
        found = {
            name: [value.kind, value.message] if isinstance(value, Failed) else list(value)
            for name, value in workers.map(jobs, timeout_s=6)
        }
    said = []
    for there, threads in (("9.9", 1), (version("justenough"), 1000)):
        try:
            with (
                mock.patch.object(ray_workers, "version", lambda _, v=there: v),
                open_workers("ray", threads=threads) as workers,
            ):
                list(workers.map(jobs))
        except InputError as e:
            said.append(str(e))
    return {"found": found, "said": said}


def played(scene: str, folder: Path) -> Any:
    """What a scene returns from a process of its own, in which a warning is an error."""
    free = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    # Short, for sockets lie in it; and of its own, for Ray remembers clusters that were killed.
    own = Path(tempfile.mkdtemp(prefix="r"))
    if scene == "scene_kill":
        (own / "ray").mkdir()
        (own / "ray/ray_current_cluster").write_text("127.0.0.1:1")
    out = subprocess.run(
        [sys.executable, "-W", "error", __file__, scene, folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={
            **free,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "RAY_TMPDIR": str(own),
            "RAY_AUTH_MODE": "disabled",  # or Ray leaves a token in the home folder
        },
    )
    shutil.rmtree(own, ignore_errors=True)
    assert out.returncode == 0, out.stderr
    *before, last = out.stdout.splitlines()
    assert scene == "scene_node" or not before, "Ray itself stays quiet; its test cluster does not"
    return json.loads(last)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network(tmp_path / "m.onnx")
    return tmp_path


def test_a_killed_worker_changes_no_answer(folder: Path) -> None:
    """Nor does a cluster that was killed before and is still on record."""
    expected = answers(InProcess(), folder)
    got = played("scene_kill", folder)
    assert got["found"] == expected
    assert got["again"] == expected
    assert got["pids"] >= 3, "another process took over"


def test_a_lost_machine_changes_no_answer(folder: Path) -> None:
    got = played("scene_node", folder)
    del got["client"]
    assert got == dict.fromkeys(map(str, range(8)), "[1.]")


def test_failures_are_a_sentence_each(folder: Path) -> None:
    got = played("scene_failures", folder)
    lost = "its process on Ray or the machine under it was lost (tried 3 times)"
    unsent = got["found"].pop("unsent")
    assert unsent[0] == "error"
    assert "pickle" in unsent[1].lower()
    assert got["found"] == {
        "fine": [1.0],
        "nan": ["error", "x is nan in row 0; every value must be finite"],
        "zero": ["error", "ZeroDivisionError: division by zero"],
        "exit": ["crashed", lost],
        "slow": ["timed out", "it took more than 6 s"],
        "threads": [1.0],
    }
    there, wide = got["said"]
    assert there.startswith("a machine of the Ray cluster has justenough ")
    assert there.endswith(" and this one has 9.9; install the same on all")
    assert wide.startswith("no machine of the Ray cluster has the 1000 CPUs of a worker")


@pytest.mark.parametrize("spec", ["ray", "ray://127.0.0.1:1"])
def test_no_cluster_there_is_one_sentence(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    ray = mock.Mock()
    ray.is_initialized.return_value = False
    monkeypatch.setattr(importlib, "import_module", lambda _: ray)
    monkeypatch.setenv("RAY_ADDRESS", "[::1]:1")
    where = r" at \[::1\]:1" if spec == "ray" else ""
    with pytest.raises(
        InputError, match=f"workers='{spec}' cannot be reached{where} \\(.*Error: "
    ):
        open_workers(spec)
    ray.init.assert_not_called()


def main(arguments: Sequence[str]) -> None:
    scene, folder = arguments
    sys.stdout.write(json.dumps(globals()[scene](Path(folder))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
