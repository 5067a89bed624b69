"""Class activation maps of one sample in plain numpy, one channel and one place after the other.

`gradient` and `maps` are `[...positions, channels]`.
"""

import numpy as np


def _weighed(weights, maps):
    total = np.zeros(maps.shape[:-1])
    for k, weight in enumerate(weights):
        total += weight * maps[..., k]
    return np.where(total > 0, total, 0)


def _wide(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


def grad_cam(gradient, maps):
    gradient, maps = _wide(gradient, maps)
    return _weighed([gradient[..., k].mean() for k in range(maps.shape[-1])], maps)


def grad_cam_plus_plus(gradient, maps):
    """Eq. 19 with second and third derivatives as powers of the first, eq. 10."""
    gradient, maps = _wide(gradient, maps)
    weights = []
    for k in range(maps.shape[-1]):
        total, weight = maps[..., k].sum(), 0.0
        for g in gradient[..., k].ravel():
            if g > 0:
                weight += g * g**2 / (2 * g**2 + total * g**3)
        weights.append(weight)
    return _weighed(weights, maps)


def hires_cam(gradient, maps):
    gradient, maps = _wide(gradient, maps)
    return np.maximum(np.einsum("...k,...k->...", gradient, maps), 0)


def layer_cam(gradient, maps):
    gradient, maps = _wide(gradient, maps)
    return hires_cam(np.where(gradient > 0, gradient, 0), maps)


def x_grad_cam(gradient, maps):
    gradient, maps = _wide(gradient, maps)
    weights = []
    for k in range(maps.shape[-1]):
        total = maps[..., k].sum()
        shares = maps[..., k] / total if total else np.zeros(maps.shape[:-1])
        weights.append((shares * gradient[..., k]).sum())
    return _weighed(weights, maps)


def eigen_cam(gradient, maps, centre=False):
    """By a singular value decomposition; the mean activation lies on the positive side."""
    del gradient
    rows = np.asarray(maps, np.float64).reshape(-1, maps.shape[-1])
    mean = rows.mean(0)
    taken = rows - mean if centre else rows
    _, values, vectors = np.linalg.svd(taken, full_matrices=False)
    if values[0] == 0:
        return np.zeros(maps.shape[:-1])
    assert values[1] < 0.995 * values[0], "no first direction to compare with"
    first = vectors[0] if vectors[0] @ mean >= 0 else -vectors[0]
    return np.maximum(taken @ first, 0).reshape(maps.shape[:-1])
