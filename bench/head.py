"""A new head on a frozen network, whole job: `transfer fit --recipe linear-svm` against the PyTorch tutorial's way.

    python bench/head.py ../shared/data/hymenoptera [--rounds 3] [--epochs 10]

The tutorial's way ("Transfer Learning for Computer Vision", ConvNet as fixed feature extractor): ImageFolder, random
resized crops and flips, batches of 4 as the tutorial has them, SGD 0.001 with momentum on the new last layer, a step
down every 7 epochs, the best epoch on val kept. Both start as processes with nothing loaded and nothing cached, and use
EfficientNet-Lite0 with the same weights. The second `fit` on the same data is timed too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with train/ and val/")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--tutorial", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tutorial:
        _tutorial(arguments.folder, arguments.epochs)
        return
    seconds: dict[str, list[float]] = {"tutorial": [], "fit": [], "second fit": []}
    accuracy: dict[str, list[float]] = {name: [] for name in seconds}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as scratch:
            tutorial = [
                sys.executable,
                __file__,
                str(arguments.folder),
                "--tutorial",
                "--epochs",
                str(arguments.epochs),
            ]
            _time("tutorial", tutorial, scratch, seconds, accuracy)
            for name in ("fit", "second fit"):
                out = str(Path(scratch) / name.replace(" ", "-"))
                fit = ["fit", str(arguments.folder), "--recipe", "linear-svm", "--out", out, "--json", "-q"]
                fit.append("--no-report")
                _time(name, [sys.executable, "-m", "transfer.cli", *fit], scratch, seconds, accuracy)
    base = statistics.median(seconds["tutorial"])
    print(f"{arguments.folder.name}, {arguments.epochs} epochs of the tutorial, medians of {arguments.rounds} rounds")
    for name, values in seconds.items():
        middle = statistics.median(values)
        hits = ", ".join(f"{a:.1%}" for a in sorted(set(accuracy[name])))
        span = f"({min(values):.1f} to {max(values):.1f})"
        print(f"  {name:12} {middle:7.1f} s {span:18} {base / middle:6.1f} x   accuracy on val {hits}")


def _time(name: str, command: list[str], scratch: str, seconds: dict, accuracy: dict) -> None:
    environment = {**os.environ, "TRANSFER_CACHE": str(Path(scratch) / "cache"), "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    seconds[name].append(time.perf_counter() - started)
    result = json.loads(done.stdout)
    accuracy[name].append(result["test"]["accuracy"])


def _tutorial(folder: Path, epochs: int) -> None:
    import copy

    import plain
    import torch
    from torch import nn
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    torch.manual_seed(0)
    normalise = transforms.Normalize([0.5] * 3, [0.5] * 3)  # as these weights want it
    see = {
        "train": [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()],
        "val": [transforms.Resize(256), transforms.CenterCrop(224)],
    }
    sets = {
        part: ImageFolder(str(folder / part), transforms.Compose([*steps, transforms.ToTensor(), normalise]))
        for part, steps in see.items()
    }
    loaders = {
        part: torch.utils.data.DataLoader(images, batch_size=4, shuffle=part == "train", num_workers=2)
        for part, images in sets.items()
    }
    model, _ = plain.load_network()
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.classifier = nn.Linear(1280, len(sets["train"].classes))
    optimiser = torch.optim.SGD(model.classifier.parameters(), lr=0.001, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=7, gamma=0.1)
    loss_of = nn.CrossEntropyLoss()
    best, best_weights = 0.0, copy.deepcopy(model.state_dict())
    for _ in range(epochs):
        for part in ("train", "val"):
            model.train(part == "train")
            hits = 0
            for images, labels in loaders[part]:
                optimiser.zero_grad()
                with torch.set_grad_enabled(part == "train"):
                    scores = model(images)
                    loss = loss_of(scores, labels)
                    if part == "train":
                        loss.backward()
                        optimiser.step()
                hits += int((scores.argmax(1) == labels).sum())
            if part == "train":
                schedule.step()
            elif hits / len(sets["val"]) > best:
                best, best_weights = hits / len(sets["val"]), copy.deepcopy(model.state_dict())
    model.load_state_dict(best_weights)
    print(json.dumps({"test": {"accuracy": best}}))


if __name__ == "__main__":
    main()
