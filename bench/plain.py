"""The plain way: what the tutorials of torchvision and timm do. The other side of every ratio in this folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn


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
    from torch.utils.data import DataLoader
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


@contextmanager
def stopwatch(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds that the block takes to `seconds[name]`."""
    started = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
