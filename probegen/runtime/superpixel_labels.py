"""Superpixels: groups of neighbouring pixels of one colour, for methods that hide groups."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.errors import InputError
from probegen.runtime.arguments import counted, positive
from probegen.runtime.inputs import Array

_COLOURS = 3
#: Lightness in CIE Lab goes from 0 to this, which is what `compactness` is weighed against.
_LIGHTEST = 100.0
#: How many times as many cells are tried where some are joined.
_MORE = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0)


def superpixels(
    image: npt.ArrayLike, *, segments: int = 16, compactness: float = 10.0
) -> npt.NDArray[np.int32]:
    """Returns which superpixel each pixel belongs to: an input `groups` of an artefact.

    SLIC (Achanta et al. 2012), as scikit-image computes it. Each picture's values are brought to 0
    to 1 first; three channels are taken for red, green and blue and compared in CIE Lab, others as
    they are. The same picture gives the same labels.

    Args:
        image: `[batch, height, width, channel]`, or one `[height, width, channel]` or
            `[height, width]`.
        segments: how many superpixels a picture gets at most, and about; by default as many as
            methods take with their own `max_groups`.
        compactness: how much nearness counts beside colour; larger is squarer.

    Returns:
        Int32 `[batch, height, width]`: 0 to one less than the number of superpixels.

    Raises:
        InputError: it is no picture, an argument does not fit, or scikit-image is not installed.
    """
    count = counted("segments", segments)
    weight = positive("compactness", compactness)
    try:
        pictures = np.asarray(image)
    except ValueError as error:
        raise InputError(f"image is no regular array: {error}") from error
    if pictures.ndim not in (2, 3, 4) or pictures.dtype.kind not in "biuf" or not pictures.size:
        raise InputError(
            f"image has the shape {pictures.shape} and type {pictures.dtype}, expected numbers "
            "[height, width], [height, width, channel] or [batch, height, width, channel]. Move "
            "channels that come first: np.moveaxis(x, 1, -1)."
        )
    if not np.isfinite(pictures).all():
        raise InputError("image has values that are not finite.")
    if pictures.ndim == 2:
        pictures = pictures[..., np.newaxis]
    if pictures.ndim == 3:
        pictures = pictures[np.newaxis]
    slic = _slic()
    return np.stack([_labels(slic, picture, count, weight) for picture in pictures])


def _labels(slic: Any, picture: Array, count: int, weight: float) -> npt.NDArray[np.int32]:
    values = picture.astype(np.float64)
    values -= values.min()
    values /= values.max() or 1.0
    coloured = values.shape[-1] == _COLOURS
    most = min(count, values.shape[0] * values.shape[1])

    def labelled(wanted: int) -> tuple[int, npt.NDArray[np.int32]]:
        labels = slic(
            values if coloured else values * _LIGHTEST,
            n_segments=wanted,
            compactness=weight,
            convert2lab=coloured,
            start_label=0,
            channel_axis=-1,
        )
        # Numbers without gaps, whatever was joined on the way.
        found, numbers = np.unique(labels, return_inverse=True)
        return len(found), numbers.reshape(labels.shape).astype(np.int32)

    # SLIC lays out a grid, which may have more cells than were asked for, and joins small ones.
    wanted = most
    best = labelled(wanted)
    while best[0] > most and wanted > 1:
        wanted = max(1, wanted - (best[0] - most))
        best = labelled(wanted)
    for factor in _MORE:
        found = labelled(round(wanted * factor))
        if found[0] > most:
            break
        best = max(best, found, key=lambda one: one[0])
    return best[1]


def _slic() -> Any:
    try:
        return importlib.import_module("skimage.segmentation").slic
    except ImportError as error:
        raise InputError(
            "superpixels are made by scikit-image, which is not installed: "
            "pip install 'probegen[superpixels]'"
        ) from error
