"""Name: what a network is called here, and what its library has under that name."""

from __future__ import annotations

from typing import Any

from transfer.backbones.handmade import HANDMADE
from transfer.errors import UsageError, did_you_mean
from transfer.images import Preprocessing

DEFAULT = "tf_efficientnet_lite0"
TORCHVISION = "torchvision/"


def full_name(name: str) -> str:
    """Return the name under which a backbone is known here; timm's comes first where both libraries have one.

    Raises
    ------
    UsageError
        There is no such network; the message names the nearest.
    """
    if name in HANDMADE:
        return name
    bare = bare_name(name)
    if name.startswith(TORCHVISION) and bare in torchvision_names():  # timm, whose import takes seconds, is not asked
        if name != architecture(name):
            torchvision_weights(name)  # which names the tags there are
        return name
    import timm
    from timm.models import get_deprecated_models

    renamed = get_deprecated_models()
    if new := renamed.get(name):
        return new
    if not name.startswith(TORCHVISION) and timm.is_model(bare) and bare not in renamed:
        if name == bare or timm_config(name):
            return name
        raise UsageError(_unknown(name, timm.list_models(pretrained=True)))
    if not name.startswith(TORCHVISION) and bare in torchvision_names():
        return full_name(TORCHVISION + name)
    known = [*HANDMADE, *timm.list_models(), *torchvision_names(), *_with_prefix(torchvision_names())]
    raise UsageError(_unknown(name, known))


def architecture(name: str) -> str:
    """Return a full name without the tag of the weights.

    >>> architecture("torchvision/resnet18.IMAGENET1K_V1")
    'torchvision/resnet18'
    """
    return name.partition(".")[0]


def bare_name(name: str) -> str:
    """Return the architecture as its library calls it, without the library and the tag of the weights.

    >>> bare_name("torchvision/resnet18.IMAGENET1K_V1")
    'resnet18'
    """
    return architecture(name).removeprefix(TORCHVISION)


def torchvision_names() -> list[str]:
    """Return the names of torchvision's image classifiers."""
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def all_names(pretrained: bool = False) -> list[str]:
    """Return the full names of all backbones, or of all pretrained weights, which has timm's with their tags."""
    import timm

    handmade = [] if pretrained else HANDMADE
    return [*handmade, *timm.list_models(pretrained=pretrained), *_with_prefix(torchvision_names())]


def is_published(name: str) -> bool:
    """Say whether there are pretrained weights of this name anywhere; torchvision has some for all its networks."""
    if name in HANDMADE:
        return False
    config = {} if name.startswith(TORCHVISION) else timm_config(name) or {}
    return name.startswith(TORCHVISION) or bool(config.get("hf_hub_id") or config.get("url"))


def timm_config(name: str) -> dict[str, Any] | None:
    """Return timm's `pretrained_cfg` of a name, None where there is none."""
    from timm.models import get_pretrained_cfg

    try:
        config = get_pretrained_cfg(name)
    except RuntimeError:  # no weights with this tag
        return None
    return config.to_dict() if config is not None else None


def torchvision_weights(name: str) -> Any:
    """Return torchvision's entry for the weights of a name: `url`, `transforms()`.

    Raises
    ------
    UsageError
        The name has a tag that torchvision does not have.
    """
    import torchvision

    short, _, entry = name.removeprefix(TORCHVISION).partition(".")
    choices = torchvision.models.get_model_weights(short)
    if entry and entry not in choices.__members__:
        raise UsageError(f"{short} has no weights {entry!r}; torchvision offers {', '.join(choices.__members__)}.")
    return choices[entry or "DEFAULT"]


def default_preprocessing(name: str) -> Preprocessing:
    """Return the preprocessing that the pretrained weights of this name were made with."""
    if name in HANDMADE:
        return HANDMADE[name].preprocessing
    if name.startswith(TORCHVISION):
        return Preprocessing.from_torchvision(torchvision_weights(name).transforms())
    return Preprocessing.from_timm(timm_config(name) or {})


def _with_prefix(names: list[str]) -> list[str]:
    return [TORCHVISION + name for name in names]


def _unknown(name: str, known: list[str]) -> str:
    return f"Unknown backbone {name!r}.{did_you_mean(name, known)} `transfer backbones` lists all."
