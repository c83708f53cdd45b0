"""Hub: where timm and torchvision publish pretrained weights, asked only for what its cache does not have."""

from __future__ import annotations

import threading
from typing import Any

from torch import nn

from transfer.backbones.caches import cached_file
from transfer.backbones.names import TORCHVISION, bare_name, timm_config, torchvision_weights
from transfer.backbones.networks import without_classifier
from transfer.backbones.offline import offline_help
from transfer.errors import ArtefactError, ResourceError

_CONNECT_SECONDS = 3.0


def load_from_hub(name: str) -> tuple[nn.Module, str]:
    """Load pretrained weights from the hub caches or, where they are not there, over the network.

    Returns
    -------
    tuple
        The network without its classifier, and where its weights came from, in words.

    Raises
    ------
    ResourceError
        The weights are not on this machine and the network does not answer.
    ArtefactError
        They are damaged or do not fit the network.
    """
    cached = cached_file(name)
    if cached is None:
        _require_network(name)
    try:
        if name.startswith(TORCHVISION):
            import torchvision

            weights = torchvision_weights(name)
            model: Any = torchvision.models.get_model(bare_name(name), weights=weights)
            return without_classifier(model, bare_name(name)), f"torchvision {weights}"
        import timm

        overlay = {"file": str(cached)} if cached else None
        model = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
        return model, f"timm {model.pretrained_cfg.get('hf_hub_id') or name}"
    except OSError as error:
        raise ResourceError(
            f"Could not fetch the weights of {name}: {str(error).splitlines()[0]}. {offline_help()}"
        ) from error
    except (RuntimeError, KeyError) as error:
        raise ArtefactError(f"The weights of {name} cannot be used: {str(error).splitlines()[0]}") from error


def _require_network(name: str) -> None:
    """Ask the hub for a sign of life; without one, say within seconds what is available offline."""
    if name.startswith(TORCHVISION):
        address = torchvision_weights(name).url
    else:
        from huggingface_hub import constants

        config = timm_config(name) or {}
        if not config.get("hf_hub_id") and not config.get("url"):
            raise ResourceError(f"{name} has no pretrained weights. Choose another backbone, or give --weights FILE.")
        address = constants.ENDPOINT
        if constants.HF_HUB_OFFLINE:
            raise ResourceError(
                f"The weights of {name} are not on this machine and HF_HUB_OFFLINE is set. {offline_help()}"
            )
    if not _answers(address):
        raise ResourceError(
            f"The weights of {name} are not on this machine and the hub does not answer. {offline_help()}"
        )


def _answers(address: str) -> bool:
    import urllib.error
    import urllib.request

    reached = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_CONNECT_SECONDS).close()
            reached.set()
        except urllib.error.HTTPError:
            reached.set()  # an answer, if not the one asked for
        except (OSError, ValueError):
            pass

    # in a thread, because looking a name up has no timeout of its own
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_CONNECT_SECONDS)
    return reached.is_set()
