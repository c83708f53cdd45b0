"""Backbones: networks pretrained on ImageNet, from timm or torchvision, without their classifier; or made by hand.

Weights are looked for in this order: a file or run folder that the user names, an installed weights package (the
embedded default), the local caches of timm's and torchvision's hubs, the network. The preprocessing comes with them.
How a name becomes a backbone, each step a module of this folder:

* `names` says what a network is called and what its library has under that name.
* `networks` builds it without its classifier, `classifiers` with another one; both with random weights.
* `handmade` has what needs neither a library nor weights: raw pixels, and image features from before deep learning.
* `weights` reads tensors, fits them into a network and fingerprints them. They come from `packages` or the `hub`;
  `caches` is what the hubs have left on this machine, `offline` all that can be had without them.
* `imagenet` keeps the classifier instead, and knows what its classes are called.
* `loading` puts it together, and `listing` and `sizes` say what there is to choose from.
"""

from __future__ import annotations

import warnings

from transfer.backbones.classifiers import classifier_network, own_classifier, with_head
from transfer.backbones.handmade import HANDMADE
from transfer.backbones.imagenet import load_imagenet_classifier
from transfer.backbones.listing import list_backbones
from transfer.backbones.loading import Backbone, finish, load_backbone, see
from transfer.backbones.names import DEFAULT, default_preprocessing, full_name, torchvision_names
from transfer.backbones.networks import build, set_submodule, without_classifier
from transfer.backbones.offline import available_offline, local_weights
from transfer.backbones.packages import EMBEDDED
from transfer.backbones.sizes import measure
from transfer.backbones.weights import fingerprint, load_weights, read_weights

__all__ = [
    "DEFAULT",
    "EMBEDDED",
    "HANDMADE",
    "Backbone",
    "available_offline",
    "build",
    "classifier_network",
    "default_preprocessing",
    "fingerprint",
    "finish",
    "full_name",
    "list_backbones",
    "load_backbone",
    "load_imagenet_classifier",
    "load_weights",
    "local_weights",
    "measure",
    "own_classifier",
    "read_weights",
    "see",
    "set_submodule",
    "torchvision_names",
    "with_head",
    "without_classifier",
]

# tqdm says so in a notebook without ipywidgets, when timm imports it; its bars do without
warnings.filterwarnings("ignore", message="IProgress not found")
