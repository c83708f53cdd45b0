"""Hub: where timm and torchvision publish pretrained weights, asked only for what its cache does not have."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.error
import urllib.request
from typing import Any

from torch import nn

from transfer.backbones.caches import cached_file, has_something_like
from transfer.backbones.names import TORCHVISION, bare_name, is_published, timm_config, torchvision_weights
from transfer.backbones.networks import without_classifier
from transfer.backbones.offline import offline_help
from transfer.errors import ArtefactError, ResourceError

_CONNECT_SECONDS = 2.0  # with the imports, this keeps the message about a missing network within five seconds


class Question:
    """Ask an address for a sign of life, while the one who asks does something else."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._patience_ends = time.monotonic() + _CONNECT_SECONDS
        self._answered = threading.Event()
        # in a thread, because looking a name up has no timeout of its own
        self._asking = threading.Thread(target=self._ask, daemon=True)
        self._asking.start()

    def answered(self) -> bool:
        """Wait for the answer until patience ends; say whether there was one."""
        self._asking.join(max(0.0, self._patience_ends - time.monotonic()))
        return self._answered.is_set()

    def _ask(self) -> None:
        try:
            request = urllib.request.Request(self.address, method="HEAD")
            urllib.request.urlopen(request, timeout=_CONNECT_SECONDS).close()
            self._answered.set()
        except urllib.error.HTTPError:
            self._answered.set()  # an answer, if not the one asked for
        except (OSError, ValueError, http.client.HTTPException):
            pass


def ask_ahead(name: str) -> Question | None:
    """Ask timm's hub already while timm is imported, which takes seconds, if `name` will surely need it."""
    from huggingface_hub import constants

    if name.startswith(TORCHVISION) or constants.HF_HUB_OFFLINE or has_something_like(name):
        return None
    return Question(constants.ENDPOINT)


def load_from_hub(
    name: str, question: Question | None = None, *, with_classifier: bool = False
) -> tuple[nn.Module, str]:
    """Load pretrained weights from the hub caches or, where they are not there, over the network.

    Parameters
    ----------
    question
        What `ask_ahead` has asked already.
    with_classifier
        Keep the classifier that the weights have.

    Returns
    -------
    tuple
        The network, without its classifier if not told otherwise, and where its weights came from, in words.

    Raises
    ------
    ResourceError
        The weights are not on this machine and the network does not answer.
    ArtefactError
        They are damaged or do not fit the network.
    """
    cached = cached_file(name)
    if cached is None:
        _require_network(name, question)
    try:
        if name.startswith(TORCHVISION):
            import torchvision

            weights = torchvision_weights(name)
            model: Any = torchvision.models.get_model(bare_name(name), weights=weights)
            model = model if with_classifier else without_classifier(model, bare_name(name))
            return model, f"torchvision {weights}"
        import timm

        overlay = {"file": str(cached)} if cached else None
        settings: dict[str, Any] = {} if with_classifier else {"num_classes": 0}
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **settings)
        return model, f"timm {model.pretrained_cfg.get('hf_hub_id') or name}"
    except OSError as error:
        raise ResourceError(
            f"Could not fetch the weights of {name}: {_first_sentence(error)} {offline_help()}"
        ) from error
    except (RuntimeError, KeyError) as error:
        raise ArtefactError(f"The weights of {name} cannot be used: {_first_sentence(error)}") from error


def _require_network(name: str, question: Question | None) -> None:
    """Without a sign of life from the hub, say within seconds what is available offline."""
    from huggingface_hub import constants

    if name.startswith(TORCHVISION):
        address = torchvision_weights(name).url
    else:
        if not is_published(name):
            raise ResourceError(f"{name} has no pretrained weights. Choose another backbone, or give --weights FILE.")
        config = timm_config(name) or {}
        address = constants.ENDPOINT if config.get("hf_hub_id") else config["url"]
    if constants.HF_HUB_OFFLINE:
        raise ResourceError(
            f"The weights of {name} are not on this machine and HF_HUB_OFFLINE is set. {offline_help()}"
        )
    if question is None or question.address != address:
        question = Question(address)
    instead = offline_help()  # while the question is out
    if not question.answered():
        raise ResourceError(f"The weights of {name} are not on this machine and the hub does not answer. {instead}")


def _first_sentence(error: Exception) -> str:
    """Return the first line of an error's message, with one full stop; its type where it says nothing."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line.rstrip(".") + "."
