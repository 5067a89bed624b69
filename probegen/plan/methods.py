"""One line a method: how the number is defined, and where."""

from __future__ import annotations

from probegen.artefact import manifest

METHODS = {
    manifest.INPUT_GRADIENT: "d target / d input (Baehrens et al. 2010, eq. 1)",
    manifest.SALIENCY: "max over channels of |d target / d input| (Simonyan et al. 2013, sec. 3.1)",
    manifest.GRAD_CAM: "relu(sum_k mean(d target / d A_k) A_k) (Selvaraju et al. 2017, eqs. 1-2)",
    manifest.INTEGRATED_GRADIENTS: (
        "(x - baseline) * mean of d target / d x on the line (Sundararajan et al. 2017, eq. 3)"
    ),
    manifest.ATTENTION: "attention weights after the softmax (Vaswani et al. 2017, eq. 1)",
}
