"""Offline: the pretrained weights that are on this machine, whoever put them there."""

from __future__ import annotations

from transfer.backbones.caches import cached_file
from transfer.backbones.names import all_names
from transfer.backbones.packages import EMBEDDED, embedded_file


def local_weights(name: str) -> str | None:
    """Return where on this machine the pretrained weights of `name` are, or None."""
    found = embedded_file(name) or cached_file(name)
    return str(found) if found else None


def available_offline() -> list[str]:
    """Return the backbones whose weights are on this machine."""
    return [name for name in dict.fromkeys([*EMBEDDED, *all_names(pretrained=True)]) if local_weights(name)]


def offline_help() -> str:
    """Say what can be used without network."""
    here = available_offline()
    return f"Here without network: {', '.join(here) or 'none'}. Or give --weights FILE.safetensors."
