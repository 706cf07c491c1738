"""The files of an ncnn network, read without trust.

A network is three files side by side: `.param`, the graph as text; `.bin`, its weights; and
`.json`, a note of ours with the names and shapes that the ONNX file had and the digests of the
other two. ncnn parses graph and weights in C++ without much distrust, so what can be checked is
checked here, before it reads them.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from justenough.errors import InputError

GRAPH = "model.ncnn.param"
MAGIC = "7767517"
MOST_AXES = 4
MOST_GRAPH_BYTES = 1 << 26
MOST_NOTE_BYTES = 1 << 20
LONGEST_NAME = 255  # of a layer or a tensor in ncnn
NOTE_FORMAT = 1
_PLAIN_NAME = re.compile(rf"[!-~]{{1,{LONGEST_NAME}}}")


@dataclass(frozen=True)
class Port:
    """An input or output: what the ONNX file called it and what ncnn calls it.

    Attributes:
        name: Name in the ONNX file.
        blob: Name in the `.param` file.
        type: As ONNX Runtime writes it, `tensor(uint8)`; ncnn itself computes on floats.
        row: Shape of one row, without the batch axis.
    """

    name: str
    blob: str
    type: str
    row: tuple[int, ...]

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Shape of a batch; the first size is free."""
        return ("n", *self.row)


@dataclass(frozen=True)
class Note:
    """What stands beside a graph: its ports, and the digests of graph and weights.

    Attributes:
        inputs, outputs: In the order of the ONNX file.
        param_sha256, bin_sha256: Of the files beside the note.
        onnx_sha256: Of the ONNX file it was made from.
        weights: Type that the weights are stored in, `fp32` or `fp16`.
        made_with: The converter and its version.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    param_sha256: str
    bin_sha256: str
    onnx_sha256: str
    weights: str
    made_with: str

    def text(self) -> str:
        """The note as JSON, the same for the same network."""
        return json.dumps({"format": NOTE_FORMAT, **asdict(self)}, indent=1) + "\n"

    @staticmethod
    def parse(text: str, name: str) -> "Note":
        """Read `text`, found in the file `name`.

        Raises:
            InputError: It is not JSON, lacks a key, or a value is of another type or size.
        """
        try:
            said = json.loads(text)
            if said["format"] != NOTE_FORMAT:
                raise InputError(
                    f"{name} has format {said['format']!r}; this version reads {NOTE_FORMAT}: "
                    "convert the ONNX file again"
                )
            words = {k: str(said[k]) for k in _WORDS}
            return Note(_ports(said["inputs"]), _ports(said["outputs"]), **words)
        except (KeyError, TypeError, ValueError, RecursionError) as e:
            if isinstance(e, InputError):
                raise
            raise InputError(
                f"{name} is not a note of this program ({type(e).__name__}); "
                "convert the ONNX file again"
            ) from e


_WORDS = ("param_sha256", "bin_sha256", "onnx_sha256", "weights", "made_with")


def _ports(said: Any) -> tuple[Port, ...]:
    out = tuple(
        Port(str(p["name"]), str(p["blob"]), str(p["type"]), tuple(map(_size, p["row"])))
        for p in said
    )
    names = {p.name for p in out}
    if not out or len(names) != len(out) or any(len(p.row) > MOST_AXES for p in out):
        raise ValueError("ports")
    if any(np.prod(p.row, dtype=object) > 2**31 for p in out):
        raise ValueError("size")
    return out


def _size(value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**31:
        raise ValueError("size")
    return value


def files_of(path: Path) -> tuple[Path, Path, Path]:
    """Graph, weights and note of `path`: a folder that `convert` wrote, or a `.param` file.

    Raises:
        InputError: One of the three is not there, or is no `.param` file.
    """
    graph = path / GRAPH if path.is_dir() else path
    if graph.suffix != ".param":
        raise InputError(f"{path.name} is no ncnn network; give a .param file or its folder")
    three = (graph, graph.with_suffix(".bin"), graph.with_suffix(".json"))
    for file in three:
        if not file.is_file():
            raise InputError(
                f"{file.name} is missing in {str(file.parent)!r}; an ncnn network is "
                f"{', '.join(f.name for f in three)}"
            )
    return three


def ncnn_sha256(path: Path) -> str:
    """Digest of a network's graph, weights and note together."""
    h = hashlib.sha256()
    for file in files_of(path):
        h.update(digest(file).encode())
    return h.hexdigest()


def digest(file: Path) -> str:
    """SHA-256 of one file."""
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_network(path: Path) -> tuple[str, Path, Note]:
    """Graph text, weights file and note of an untrusted network.

    Raises:
        InputError: A file is missing, too large, not what it should be, or not the one that
            the note was written for.
    """
    graph, weights, beside = files_of(path)
    note = Note.parse(_text(beside, MOST_NOTE_BYTES), beside.name)
    text = _text(graph, MOST_GRAPH_BYTES)
    for file, want in ((graph, note.param_sha256), (weights, note.bin_sha256)):
        if digest(file) != want:
            raise InputError(
                f"{file.name} is not the file that {beside.name} was written for; it was cut "
                "short or changed: convert the ONNX file again"
            )
    made = check_graph(text, graph.name)
    known = {blob for _, blobs in made for blob in blobs}
    fed = {blob for kind, blobs in made if kind == "Input" for blob in blobs}
    for port, among in [(p, fed) for p in note.inputs] + [(p, known) for p in note.outputs]:
        if port.blob not in among:
            raise InputError(
                f"{graph.name} has no tensor {port.blob!r}, which {port.name!r} needs"
            )
    return text, weights, note


def _text(file: Path, most: int) -> str:
    size = file.stat().st_size
    if size > most:
        raise InputError(f"{file.name} has {size:,} bytes; at most {most:,} are read")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise InputError(f"{file.name} is not text; convert the ONNX file again") from e


def check_graph(text: str, name: str) -> list[tuple[str, list[str]]]:
    """Type and outputs of every layer of a `.param` text, in order, if it is well formed.

    Raises:
        InputError: No magic number, counts that are not those of the lines, a name too long
            for ncnn, or a tensor that is read before, or more often than, it is written.
    """
    head, counts, *lines = [*(x for x in text.splitlines() if x.strip()), "", ""]
    if head.strip() != MAGIC:
        raise InputError(f"{name} starts with {head[:20]!r}; an ncnn graph starts with {MAGIC}")
    layers = [_layer(line.split(), name) for line in lines if line]
    made: set[str] = set()
    ready: set[str] = set()
    for _, reads, writes in layers:
        for blob in reads:
            if blob not in ready:
                raise InputError(f"{name} reads {blob!r} where no layer has written it")
            ready.remove(blob)
        for blob in writes:
            if blob in made:
                raise InputError(f"{name} writes {blob!r} twice")
            made.add(blob)
        ready.update(writes)
    if counts.split() != [str(len(layers)), str(len(made))]:
        raise InputError(
            f"{name} announces {counts[:40]!r} layers and tensors and holds {len(layers)} "
            f"{len(made)}; it was cut short or changed"
        )
    return [(kind, writes) for kind, _, writes in layers]


def _layer(words: list[str], name: str) -> tuple[str, list[str], list[str]]:
    """Type, inputs and outputs of one line: `type name n_in n_out inputs outputs settings`."""
    counts = words[2:4]
    if len(counts) < 2 or not all(re.fullmatch(r"[0-9]{1,6}", c) for c in counts):
        raise InputError(f"{name} holds {' '.join(words)[:60]!r}, which is no layer")
    n_in, n_out = map(int, counts)
    blobs = words[4 : 4 + n_in + n_out]
    if len(blobs) < n_in + n_out:
        raise InputError(f"{name} holds {' '.join(words)[:60]!r}, which lacks tensors")
    if not all(_PLAIN_NAME.fullmatch(w) for w in (*words[:2], *blobs)):
        raise InputError(
            f"{name} holds a name that is not plain or is longer than {LONGEST_NAME} characters"
        )
    return words[0], blobs[:n_in], blobs[n_in:]
