"""Seeds of targets, for what is planned and verified; see `probegen.artefact.seeds`."""

from probegen.artefact.seeds import choices, one_hot, seed, seeds

__all__ = ["choices", "one_hot", "seed", "seeds"]
