"""The command line in this process, and one finished run that tests may read."""

import sys

import numpy as np
import onnx
import pytest
from small_world import KEEP, Cli, Finished, Given, Ran, blobs, mlp, process

from justenough.cli.main import main


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run `justenough ARGS` in this process: exit code, stdout and stderr."""

    def run(*args: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["justenough", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        seen = capsys.readouterr()
        code = end.value.code
        assert isinstance(code, int)
        return Ran(code, seen.out, seen.err)

    return run


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """The small network and 900 cases of 300 groups."""
    folder = tmp_path_factory.mktemp("given")
    onnx.save(mlp(), str(folder / "small.onnx"))
    x, labels = blobs(np.random.default_rng(5), 900)
    groups = np.array([f"patient {k // 3}" for k in range(len(x))])
    np.savez(folder / "cases.npz", x=x, labels=labels, groups=groups)
    return Given(folder, folder / "small.onnx", folder / "cases.npz")


@pytest.fixture(scope="session")
def finished(given: Given, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A whole `compress` run of the small network in a process of its own."""
    out = tmp_path_factory.mktemp("finished") / "out"
    return Finished(out, process("compress", *given.args, *KEEP, "-o", out))
