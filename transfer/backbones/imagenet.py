"""ImageNet: a pretrained network with the classifier that its weights have, and what its classes are called."""

from __future__ import annotations

import collections
from pathlib import Path

from torch import nn

from transfer.backbones.classifiers import classifier_path
from transfer.backbones.hub import ask_ahead, load_from_hub
from transfer.backbones.loading import Backbone, finish
from transfer.backbones.names import DEFAULT, TORCHVISION, default_preprocessing, full_name, timm_config
from transfer.backbones.networks import build_with_classifier
from transfer.backbones.packages import EMBEDDED, embedded_file, read_embedded
from transfer.backbones.weights import load_weights, read_weights
from transfer.errors import ArtefactError, UsageError

_INSTEAD = "`transfer fit DATA` trains classes of your own on it."


def load_imagenet_classifier(
    name: str = DEFAULT, weights: str | Path | None = None
) -> tuple[Backbone, tuple[str, ...]]:
    """Load a pretrained network whole, so that its "features" are the scores of the classes that it was trained on.

    Parameters
    ----------
    name
        As in `load_backbone`.
    weights
        A .safetensors or .pth file that has the classifier too; by default the pretrained weights are looked for.

    Returns
    -------
    tuple
        The network, from images to scores (N, C), and the names of the C classes.

    Raises
    ------
    UsageError
        There is no such network, its weights were made without a classifier or for classes that have no names here, or
        the weights are random or a run's.
    ArtefactError
        The file has no classifier, or does not fit the network.
    ResourceError
        The weights are not on this machine and the network does not answer.
    """
    if weights == "random":
        raise UsageError(
            "Random weights know no classes: what they say of an image means nothing. Leave out --weights."
        )
    if weights is not None and (Path(weights) / "run.json").exists():
        raise UsageError(f"{weights} is a run, with classes of its own: `transfer predict {weights} IMAGE...`.")
    embedded = embedded_file(name) if weights is None else None
    question = ask_ahead(name) if weights is None and embedded is None else None
    name = full_name(name)
    if weights is not None:
        model, n_classes = _from_file(name, Path(weights))
        classes, source = class_names(n_classes, str(weights)), str(weights)
    else:
        # before anything is downloaded
        classes = class_names(_published_classes(name), f"the pretrained weights of {name}")
        if embedded is not None:
            model = build_with_classifier(name)
            load_weights(model, read_embedded(name, embedded), embedded.name)
            source = f"package {EMBEDDED[name].replace('_', '-')}, {embedded.name}"
        else:
            model, source = load_from_hub(name, question, with_classifier=True)
    return finish(name, model, default_preprocessing(name), source), classes


def class_names(n_classes: int, weights: str) -> tuple[str, ...]:
    """Return the names of the classes of ImageNet, or of that larger part of it which has so many.

    Those of the usual 1,000 are torchvision's, short and all different. Those of the larger ones are timm's, with the
    number in WordNet where two classes have the same name.

    Parameters
    ----------
    weights
        What has so many classes, in words for the message.

    Raises
    ------
    UsageError
        Nothing of ImageNet has so many.
    """
    if n_classes == 0:
        raise UsageError(f"There is no classifier in {weights}: it was trained without classes. {_INSTEAD}")
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": n_classes})
    if subset is None:
        raise UsageError(
            f"What {weights} tells apart has no names here: it gives {n_classes} numbers, and ImageNet has 1,000 "
            f"classes (its larger parts 11,221 to 21,843). {_INSTEAD}"
        )
    if n_classes == 1000:
        from torchvision.models import AlexNet_Weights

        return tuple(AlexNet_Weights.DEFAULT.meta["categories"])
    info = ImageNetInfo(subset)
    names = info.label_descriptions()
    counts = collections.Counter(names)
    synsets = info.label_names()
    return tuple(
        name if counts[name] == 1 else f"{name} ({synset})" for name, synset in zip(names, synsets, strict=True)
    )


def _published_classes(name: str) -> int:
    if name.startswith(TORCHVISION):
        return 1000
    config = timm_config(name) or {}
    return int(config.get("num_classes") or 0)


def _from_file(name: str, file: Path) -> tuple[nn.Module, int]:
    """Return the network with the weights of a file, and how many classes its classifier has."""
    tensors = read_weights(file)
    head = classifier_path(name)
    weight = tensors.get(f"{head}.weight")
    if not head or weight is None:
        where = f"{head}.weight" if head else "which this network has nowhere"
        raise ArtefactError(f"{file} has no classifier ({where}), so it names no classes. {_INSTEAD}")
    n_classes = int(weight.shape[0])
    class_names(n_classes, str(file))  # the right message comes before a network is built
    model = build_with_classifier(name, n_classes)
    load_weights(model, tensors, str(file))
    return model, n_classes
