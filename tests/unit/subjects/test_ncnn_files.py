import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from justenough.errors import InputError
from justenough.subjects import ncnn_files
from justenough.subjects.ncnn_files import (
    GRAPH,
    Note,
    Port,
    check_graph,
    digest,
    files_of,
    ncnn_sha256,
    read_network,
)

RELU = "7767517\n2 2\nInput i 0 1 in0\nReLU r 1 1 in0 out0\n"
PORT = Port("x", "in0", "tensor(float)", (2, 3))
NOTE = Note((PORT,), (Port("y", "out0", "tensor(float)", (2, 3)),), "a", "b", "c", "fp32", "d")


def written(folder: Path, graph: str = RELU, note: Note = NOTE, weights: bytes = b"w") -> Path:
    """A network whose note has the right digests."""
    path = folder / GRAPH
    path.write_text(graph)
    path.with_suffix(".bin").write_bytes(weights)
    found = replace(note, param_sha256=digest(path), bin_sha256=digest(path.with_suffix(".bin")))
    path.with_suffix(".json").write_text(found.text())
    return path


names = st.text(min_size=1, max_size=20)
rows = st.lists(st.integers(1, 500), max_size=3).map(tuple)
ports = st.lists(
    st.builds(Port, names, names, names, rows), min_size=1, max_size=4, unique_by=lambda p: p.name
).map(tuple)


@given(st.builds(Note, ports, ports, names, names, names, names, names))
def test_a_note_reads_back_what_it_wrote(note: Note) -> None:
    assert Note.parse(note.text(), "n.json") == note


def test_a_batch_is_free_and_its_row_is_not() -> None:
    assert PORT.shape == ("n", 2, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": []},
        {"inputs": "x"},
        {"inputs": None},
        {"inputs": [{"name": "x"}]},
        {"inputs": [{"name": "x", "blob": "b", "type": "t", "row": [0]}]},
        {"inputs": [{"name": "x", "blob": "b", "type": "t", "row": [True]}]},
        {"inputs": [{"name": "x", "blob": "b", "type": "t", "row": [2.0]}]},
        {"inputs": [{"name": "x", "blob": "b", "type": "t", "row": [2**40]}]},
        {"inputs": [{"name": "x", "blob": "b", "type": "t", "row": [2**20, 2**20]}]},
        {"inputs": [{"name": "x", "blob": "b", "type": "t", "row": [1] * 5}]},
        {"inputs": [{"name": "x", "blob": "b", "type": "t", "row": [1]}] * 2},
    ],
)
def test_notes_with_ports_that_make_no_sense(change: dict[str, Any]) -> None:
    said = {**json.loads(NOTE.text()), **change}
    with pytest.raises(InputError, match=r"^n.json is not a note of this program \("):
        Note.parse(json.dumps(said), "n.json")


@pytest.mark.parametrize("text", ["", "{}", "[]", "1", "[" * 100_000, '{"format": 1}', "\0"])
def test_what_is_no_note(text: str) -> None:
    with pytest.raises(InputError, match="is not a note of this program"):
        Note.parse(text, "n.json")


def test_a_note_of_another_format() -> None:
    with pytest.raises(InputError, match=r"n.json has format 2; this version reads 1: convert"):
        Note.parse(NOTE.text().replace('"format": 1', '"format": 2'), "n.json")


def test_a_network_is_found_by_its_folder_or_its_graph(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert files_of(tmp_path) == files_of(path)
    assert [f.suffix for f in files_of(path)] == [".param", ".bin", ".json"]
    text, weights, note = read_network(tmp_path)
    assert (text, weights.name) == (RELU, "model.ncnn.bin")
    assert note.inputs == NOTE.inputs


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m.onnx is no ncnn network; give a .param file"):
        files_of(tmp_path / "m.onnx")
    for suffix in (".json", ".bin", ".param"):
        written(tmp_path).with_suffix(suffix).unlink()
        with pytest.raises(InputError, match=rf"model.ncnn{suffix} is missing in .*; an ncnn"):
            read_network(tmp_path)


@pytest.mark.parametrize("suffix", [".param", ".bin"])
def test_files_changed_after_the_note_was_written(tmp_path: Path, suffix: str) -> None:
    file = written(tmp_path).with_suffix(suffix)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"ncnn{suffix} is not the file that model.ncnn.json"):
        read_network(tmp_path)


def test_files_too_large_or_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path)
    monkeypatch.setattr(ncnn_files, "MOST_GRAPH_BYTES", 10)
    with pytest.raises(InputError, match=r"model.ncnn.param has 48 bytes; at most 10 are read"):
        read_network(path)
    path.with_suffix(".json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"model.ncnn.json is not text; convert"):
        read_network(path)


@pytest.mark.parametrize(
    ("blob", "port"), [("out0", "inputs"), ("in1", "inputs"), ("out1", "outputs")]
)
def test_a_note_that_names_another_graphs_tensors(tmp_path: Path, blob: str, port: str) -> None:
    (known,) = getattr(NOTE, port)
    other = (replace(known, blob=blob),)
    note = replace(NOTE, inputs=other) if port == "inputs" else replace(NOTE, outputs=other)
    with pytest.raises(InputError, match=f"has no tensor '{blob}', which '{known.name}' needs"):
        read_network(written(tmp_path, note=note))


def test_the_digest_is_that_of_all_three_files(tmp_path: Path) -> None:
    seen = {ncnn_sha256(written(tmp_path))}
    seen.add(ncnn_sha256(written(tmp_path, weights=b"v")))
    seen.add(ncnn_sha256(written(tmp_path, graph=RELU.replace("ReLU r", "ReLU s"))))
    seen.add(ncnn_sha256(written(tmp_path, note=replace(NOTE, weights="fp16"))))
    assert len(seen) == 4
    assert ncnn_sha256(written(tmp_path)) in seen


def graph(*lines: str, counts: str = "2 2") -> str:
    return "\n".join(("7767517", counts, "Input i 0 1 in0", *lines))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "g starts with ''; an ncnn graph starts with 7767517"),
        ("7767518\n1 1\n", "g starts with '7767518'"),
        ("7767517", "g announces '' layers and tensors and holds 0 0"),
        (graph(), "g announces '2 2' layers and tensors and holds 1 1"),
        (graph("ReLU r 1 1 in0 out0", counts="2000000000 2"), "holds 2 2; it was cut short"),
        (graph("ReLU r 1 1 in1 out0"), "g reads 'in1' where no layer has written it"),
        (graph("ReLU r 1 1 out0 out0"), "g reads 'out0' where no layer has written it"),
        (graph("ReLU r 1 1 in0 a", "ReLU s 1 1 in0 b"), "g reads 'in0' where no layer"),
        (graph("ReLU r 1 1 in0 in0"), "g writes 'in0' twice"),
        (graph("ReLU r"), "g holds 'ReLU r', which is no layer"),
        (graph("ReLU r -1 1 in0 out0"), "which is no layer"),
        (graph("ReLU r 1 9999999 in0 out0"), "which is no layer"),
        (graph("ReLU r 1 2 in0 out0"), "'ReLU r 1 2 in0 out0', which lacks tensors"),
        (graph(f"ReLU r 1 1 in0 {'a' * 256}"), "is longer than 255 characters"),
        (graph("ReLU r 1 1 in0 \u00fc"), "holds a name that is not plain"),
    ],
)
def test_graphs_that_ncnn_must_not_see(text: str, said: str) -> None:
    with pytest.raises(InputError, match=r"^g ") as e:
        check_graph(text, "g")
    assert said in str(e.value)


def test_a_graph_gives_its_layers_in_order() -> None:
    text = graph("Split s 1 2 in0 a b", "BinaryOp o 2 1 a b out0 0=0", counts="3 4")
    assert check_graph(text, "g") == [
        ("Input", ["in0"]), ("Split", ["a", "b"]), ("BinaryOp", ["out0"]),
    ]  # fmt: skip


@example("0 0 0 2 x x")
@given(st.text() | st.lists(st.sampled_from([*RELU.split(), "\n", "\x85", "-1"])).map(" ".join))
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    for whole in (text, f"7767517\n1 1\n{text}"):
        try:
            found = check_graph(whole, "g")
        except InputError:
            continue
        assert whole.split()[1:3] == [str(len(found)), str(sum(len(w) for _, w in found))]
