"""The plain way: what the tutorials of torchvision and timm do. The other side of every ratio in this folder."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset


def load_network(n_classes: int = 0) -> tuple[nn.Module, dict]:
    """Return EfficientNet-Lite0 with the embedded ImageNet weights, as `timm` builds it, and timm's data settings."""
    import timm

    from transfer.backbones import load_backbone

    model = timm.create_model("tf_efficientnet_lite0", num_classes=n_classes)
    model.load_state_dict(load_backbone("tf_efficientnet_lite0").model.state_dict(), strict=False)
    return model, timm.data.resolve_data_config({}, model=model)


def folder_loader(folder: Path, config: dict, *, batch_size: int = 64, training: bool = False, n_workers: int = 2):
    """Return torchvision's ImageFolder behind a DataLoader with timm's transform of Pillow images."""
    import timm
    from torchvision.datasets import ImageFolder

    images = ImageFolder(str(folder), timm.data.create_transform(**config, is_training=training))
    return DataLoader(images, batch_size=batch_size, shuffle=training, num_workers=n_workers)


def extract(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return features (N, 1280) and labels of a folder of class folders, float32, default layout."""
    model, config = load_network()
    model.eval()
    rows, labels = [], []
    with torch.no_grad():
        for images, targets in folder_loader(folder, config):
            rows.append(model(images).numpy())
            labels.append(targets.numpy())
    return np.concatenate(rows), np.concatenate(labels)


class SplitImages(Dataset):
    """What ImageFolder does, on one part of a run's own split."""

    def __init__(self, folder: Path, run: Path, part: str, see) -> None:
        with open(run / "split.csv", newline="") as source:
            rows = list(csv.DictReader(source))
        self.classes = sorted({row["label"] for row in rows})
        self.rows = [row for row in rows if row["split"] == part]
        self.folder, self.see = folder, see

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int):
        with Image.open(self.folder / self.rows[i]["path"]) as image:
            return self.see(image.convert("RGB")), self.classes.index(self.rows[i]["label"])


@dataclass
class Training:
    """What a training of the plain way took, and what it came to."""

    n_images: dict[str, int]
    seconds: list[float] = field(default_factory=list)  # of each epoch
    correct: dict[str, float] = field(default_factory=dict)  # share of a part that is right after the last epoch


def fine_tune(
    folder: Path, run: Path, n_epochs: int, *, freeze: int = 0, lr: float = 1e-3, is_annealed: bool = False, test=False
) -> Training:
    """Train EfficientNet-Lite0 in float32 with AdamW on the train part of a run's split, and read val in every epoch.

    Parameters
    ----------
    freeze
        The first so many blocks, and the stem before them, stay in eval mode without gradients; 0: all layers train.
    is_annealed
        The rate follows one cycle (a warm-up and a cosine, as fastai does); otherwise it is constant.
    test
        Read the test part too, once, after the last epoch.
    """
    import timm

    torch.manual_seed(0)
    classes = SplitImages(folder, run, "train", None).classes
    model, config = load_network(len(classes))

    def loader(part: str) -> DataLoader:
        training = part == "train"
        see = timm.data.create_transform(**config, is_training=training, scale=(0.35, 1.0))
        return DataLoader(SplitImages(folder, run, part, see), batch_size=32, shuffle=training, num_workers=2)

    frozen = [model.conv_stem, model.bn1, *model.blocks[:freeze]] if freeze else []
    for module in frozen:
        module.requires_grad_(False)
    loaders = {part: loader(part) for part in ("train", "val", "test")[: 3 if test else 2]}
    result = Training({part: len(images.dataset) for part, images in loaders.items()})
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    n_steps = n_epochs * len(loaders["train"])
    course = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=n_steps) if is_annealed else None
    loss_of = nn.CrossEntropyLoss()
    for _ in range(n_epochs):
        started = time.perf_counter()
        model.train()
        for module in frozen:
            module.eval()
        for images, labels in loaders["train"]:
            optimizer.zero_grad()
            loss_of(model(images), labels).backward()
            optimizer.step()
            if course:
                course.step()
        result.correct["val"] = _share_right(model, loaders["val"])
        result.seconds.append(time.perf_counter() - started)
    if test:
        result.correct["test"] = _share_right(model, loaders["test"])
    return result


def _share_right(model: nn.Module, images: DataLoader) -> float:
    model.eval()
    with torch.no_grad():
        right = [model(x).argmax(dim=1) == y for x, y in images]
    return torch.cat(right).float().mean().item()


@contextmanager
def stopwatch(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds that the block takes to `seconds[name]`."""
    started = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
