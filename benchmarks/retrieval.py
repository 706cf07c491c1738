"""Retrieval that anybody can rebuild: which of these docstrings are nearest to this one?

The model takes a tokenised query and answers with its score for every document of a fixed
collection: the MiniLM encoder of `benchmarks.text_model`, mean pooling, unit length, and a
product with the documents' embeddings. Documents and queries are docstrings of different source
files (`benchmarks.text_cases`); which file is which is settled by a hash that is not the one that
splits cases. A query's group is its file.

Run as `python -m benchmarks.retrieval -o build/bench/retrieval`; writes model.onnx (inputs
`input_ids` and `attention_mask` (n, 64), output `scores` (n, documents)), cases.npz and
summary.json.
"""

import argparse
import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
K = 10
INPUTS = ("input_ids", "attention_mask")
DOCUMENTS_SHARE = 1 / 3
MODEL_ROWS = 64


def is_document(file: str) -> bool:
    """Whether docstrings of a source file are documents; those of the others are queries."""
    digest = hashlib.blake2b(file.encode(), digest_size=8, person=b"bench-documents").digest()
    return int.from_bytes(digest, "big") / 2**64 < DOCUMENTS_SHARE


def build(out: Path) -> dict[str, Any]:
    """Write model.onnx, cases.npz and summary.json into `out`, and return the summary."""
    import torch

    from benchmarks.text_cases import text_cases, versions
    from benchmarks.text_model import embed, load_encoder

    out.mkdir(parents=True, exist_ok=True)
    cases = text_cases()
    assert cases.groups is not None
    ids, mask = (np.asarray(cases.inputs[k]) for k in ("ids", "mask"))
    held = np.array([is_document(str(g)) for g in cases.groups])
    encoder = load_encoder()
    documents = embed(encoder, ids[held], mask[held])
    model = _searcher(encoder, documents)
    path = out / "model.onnx"
    _export(model, path)
    queries = dict(zip(INPUTS, (ids[~held], mask[~held]), strict=True))
    np.savez(out / "cases.npz", allow_pickle=False, groups=cases.groups[~held], **queries)
    with torch.inference_mode():
        few = (torch.from_numpy(v[:MODEL_ROWS]) for v in queries.values())
        ours = model(*few).numpy()
    summary = {
        "documents": int(held.sum()),
        "queries": int((~held).sum()),
        "query_files": len(np.unique(cases.groups[~held])),
        "export_error": float(np.abs(_answer(path, queries) - ours).max()),
        "versions": versions(),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", "utf8")
    return summary


def _searcher(encoder: Any, documents: Array) -> Any:
    """A module from (n, 64) ids and mask to (n, documents) scores."""
    import torch
    from torch import nn

    class Searcher(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            held = torch.from_numpy(np.ascontiguousarray(documents.T))
            self.documents = nn.Parameter(held, requires_grad=False)

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.encoder(ids, mask) @ self.documents

    return Searcher().eval()


def _export(model: Any, path: Path) -> None:
    import torch

    from benchmarks.text_cases import LENGTH
    from benchmarks.text_model import OPSET

    example = torch.ones(2, LENGTH, dtype=torch.int64)
    rows = {0: "n"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (example, example),
            str(path),
            input_names=list(INPUTS),
            output_names=["scores"],
            dynamic_axes=dict.fromkeys((*INPUTS, "scores"), rows),
            opset_version=OPSET,
            dynamo=False,
        )


def _answer(path: Path, queries: dict[str, Array]) -> Array:
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {k: v[:MODEL_ROWS] for k, v in queries.items()}
    return np.asarray(session.run(["scores"], feed)[0])


def main() -> None:
    """Build the retrieval model and its cases."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write into")
    sys.stdout.write(json.dumps(build(parser.parse_args().out), indent=1) + "\n")


if __name__ == "__main__":
    main()
