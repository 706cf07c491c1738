"""One training run from pictures to released weights, said in a few lines."""

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console

from justenough.train.classify import Recipe, fit, predict
from justenough.train.held_out import Pictures
from justenough.train.networks import NETWORKS, build
from justenough.train.release import halved, save_half
from justenough.train.scores import accuracy, balanced_accuracy, mean_auc


def parser(what: str) -> argparse.ArgumentParser:
    """The arguments that every study's training takes."""
    out = argparse.ArgumentParser(description=f"train on {what}")
    out.add_argument("--data", type=Path, required=True, help="tar of the data set")
    out.add_argument("--network", choices=sorted(NETWORKS), required=True)
    out.add_argument("-o", "--output", type=Path, required=True, help="safetensors file to write")
    out.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    out.add_argument("--epochs", type=int, help="in place of the recipe's")
    out.add_argument("--limit", type=float, default=math.inf, help="seconds; then it stops")
    out.add_argument(
        "--trial",
        action="store_true",
        help="train on four fifths of the training groups and score on the last; looks at "
        "nothing that is held out",
    )
    return out


def run(
    pictures: Pictures, recipe: Recipe, given: argparse.Namespace, said: Mapping[str, str]
) -> None:
    """Train as asked, write the weights, and print how well they do on groups not trained on.

    Args:
        pictures: All of them, those held out too.
        recipe: How to train.
        given: What `parser` read.
        said: Metadata of the file of weights.
    """
    console = Console(width=140)
    aside = pictures.tried if given.trial else pictures.held_out
    trained_on = pictures.take(~pictures.held_out & ~aside)
    asked = pictures.take(aside)
    console.print(f"{given.network}: trains on {trained_on.said()}")
    torch.manual_seed(recipe.seed)
    network = build(given.network, len(pictures.classes), pictures.pixels.shape[1])
    trained = fit(
        network,
        trained_on.pixels,
        trained_on.label,
        recipe,
        device=given.device,
        limit_s=given.limit,
    )
    done = len(trained.losses)
    console.print(f"{done} of {recipe.epochs} epochs in {trained.seconds:.0f} s on {given.device}")
    console.print("loss " + " ".join(f"{x:.3f}" for x in trained.losses[:: max(1, done // 10)]))
    epochs = f"{done} of {recipe.epochs}"
    save_half(trained.network, given.output, {**said, "network": given.network, "epochs": epochs})
    logits = predict(halved(trained.network), asked.pixels, device=given.device)
    console.print(
        f"{given.network}: accuracy {accuracy(logits, asked.label):.4f}, balanced "
        f"{balanced_accuracy(logits, asked.label):.4f}, mean AUC "
        f"{mean_auc(logits, asked.label):.4f} on {asked.said()}"
    )
