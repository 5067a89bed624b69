"""How good an attribution is, measured on the artefact alone; numpy does the rest.

    from probegen.runtime import metrics

    metrics.deletion(artefact, x, "saliency/image")       # [batch], lower is better
    metrics.sparseness(artefact, x, "saliency/image")     # [batch], 0 to 1

Every function takes the artefact, the inputs as `Artefact.run` does, and the name of the
attribution, and returns one float64 number a sample. One metric a file.
"""

from probegen.runtime.metrics.infidelity import infidelity
from probegen.runtime.metrics.max_sensitivity import max_sensitivity
from probegen.runtime.metrics.pointing_game import pointing_game
from probegen.runtime.metrics.removal import Curve, deletion, insertion, removal_curve
from probegen.runtime.metrics.sparseness import sparseness

__all__ = [
    "Curve",
    "deletion",
    "infidelity",
    "insertion",
    "max_sensitivity",
    "pointing_game",
    "removal_curve",
    "sparseness",
]
