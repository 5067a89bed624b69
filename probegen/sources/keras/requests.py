"""What a request gives beside the model's inputs: a target, a region, groups."""

from __future__ import annotations

import tensorflow as tf

from probegen.artefact.manifest import TARGET_INPUT, Manifest


def request_specs(described: Manifest, batch: int | None) -> dict[str, tf.TensorSpec]:
    """Returns what a request gives by name, in the order behind the model's inputs.

    Args:
        described: says what there is, and the shapes of a region and of groups.
        batch: the number of samples, None where it is open.
    """
    specs = {}
    if described.target_input:
        specs[TARGET_INPUT] = tf.TensorSpec([batch], tf.int32, name=TARGET_INPUT)
    for given in (described.region_input, described.groups_input):
        if given is not None:
            specs[given.name] = tf.TensorSpec(given.shape, given.dtype, name=given.name)
    return specs
