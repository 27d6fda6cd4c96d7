"""What a photograph says of its own colours and pixels, in its profile and its EXIF data: read, and handed on."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms

BAND = 256  # rows that are converted at once


def to_srgb(picture: Image.Image, path: Path) -> Image.Image:
    """Convert from the picture's own colour profile, as telephones and cameras write one, to sRGB."""
    if profile := picture.info.get("icc_profile"):
        try:
            own = ImageCms.getOpenProfile(io.BytesIO(profile))
            if not ImageCms.getProfileDescription(own).startswith("sRGB"):
                mode = {"GRAY": "L", "CMYK": "CMYK"}.get(own.profile.xcolor_space.strip(), "RGB")
                srgb = ImageCms.createProfile("sRGB")
                picture = ImageCms.profileToProfile(picture.convert(mode), own, srgb, outputMode="RGB") or picture
        except ImageCms.PyCMSError as error:
            warnings.warn(f"{path}: the colour profile is damaged ({error}); taken for sRGB.", stacklevel=4)
    elif _says_adobe_rgb(picture):
        pixels = np.array(picture.convert("RGB"))
        for band in np.split(pixels, range(BAND, len(pixels), BAND)):
            # linear light, then sRGB's curve; both spaces have their white at D65
            light = ((band / np.float32(255)) ** np.float32(563 / 256) @ _ADOBE_RGB.T).clip(0, 1)
            band[:] = np.rint(255 * np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))
        return Image.fromarray(pixels)
    return picture.convert("RGB")


_ADOBE_RGB = np.array([[1.39836, -0.39836, 0], [0, 1, 0], [0, -0.04293, 1.04293]], np.float32)  # → sRGB


def _says_adobe_rgb(picture: Image.Image) -> bool:
    """Whether EXIF says so, as cameras' does: DCF's optional colour space, for which there is no other word."""
    with suppress(Exception):  # EXIF may be damaged where the picture is not
        exif = picture.getexif()
        uncalibrated = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace) == 65535
        return uncalibrated and exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex) == "R03"
    return False


_OF_ITS_PIXELS = {*range(254, 267), 273, 274, *range(277, 282), 284, 317, *range(320, 348), 34675, 40962, 40963}
"""EXIF's and TIFF's tags that say how a photograph is turned, how large it is and how it is stored."""


def as_in(original: Image.Image, picture: Image.Image) -> tuple[Image.Image, dict[str, object]]:
    """An sRGB picture in a photograph's colours, and what to save with it."""
    kept: dict[str, object] = {}
    with suppress(ImageCms.PyCMSError):  # damaged: `read` has warned, and took the picture for sRGB
        own = ImageCms.getOpenProfile(io.BytesIO(original.info.get("icc_profile") or b""))
        if own.profile.xcolor_space.strip() == "RGB":
            if not ImageCms.getProfileDescription(own).startswith("sRGB"):
                srgb = ImageCms.createProfile("sRGB")
                picture = ImageCms.profileToProfile(picture, srgb, own, outputMode="RGB") or picture
            kept["icc_profile"] = original.info["icc_profile"]
    with suppress(Exception):  # damaged EXIF, which fails in many ways, is left behind
        exif = original.getexif()
        for directory in exif, exif.get_ifd(ExifTags.IFD.Exif):
            for tag in _OF_ITS_PIXELS & directory.keys():
                del directory[tag]
        if _says_adobe_rgb(original) and not kept:  # it is sRGB now
            exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = 1
            exif.get_ifd(ExifTags.IFD.Interop)[ExifTags.Interop.InteropIndex] = "R98"
        kept |= {"exif": exif.tobytes()} if len(exif) else {}  # without a thumbnail
    return picture, kept
