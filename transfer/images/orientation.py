"""Orientation: how the EXIF data says that an image has to be turned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transfer.images.damage import pillow_errors

if TYPE_CHECKING:
    import PIL.Image

# From the EXIF standard: orientation value to the name of the PIL.Image.Transpose that sets it upright.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return a loaded image as its EXIF orientation says; as it is where that is damaged or unknown."""
    if image.format == "TIFF":  # turned by Pillow while loading
        return image
    try:
        orientation = image.getexif().get(0x0112, 1)
        name = _UPRIGHT.get(orientation)
    except pillow_errors():  # damaged metadata; the pixels are whole
        return image
    if name is None:
        return image
    from PIL import Image

    return image.transpose(Image.Transpose[name])
