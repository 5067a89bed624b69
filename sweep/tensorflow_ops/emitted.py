"""What TensorFlow operations Keras writes: its layers, activations and operations, traced.

`python -m sweep.tensorflow_ops.emitted` lists those that no row tries.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras
import tensorflow as tf

from sweep.tensorflow_ops import rows


def emitted() -> dict[str, str]:
    """Returns each operation that Keras' own models hold, and the first model that does."""
    found: dict[str, str] = {}
    for name, model in _models():
        specs = [tf.TensorSpec(x.shape, x.dtype) for x in model.inputs]
        try:
            graph = tf.function(model, autograph=False).get_concrete_function(specs).graph
        except Exception:  # what cannot be traced writes nothing
            continue
        definition = graph.as_graph_def()
        inside = (n for f in definition.library.function for n in f.node_def)
        for node in (*definition.node, *inside):
            found.setdefault(node.op, name)
        keras.backend.clear_session()
    return found


def _models() -> Iterator[tuple[str, keras.Model]]:
    from sweep import activations, layers, operations

    for module in (layers, activations, operations):
        for subject in module.subjects():
            if subject.build is not None:
                try:
                    yield subject.name, subject.build()
                except Exception:  # what Keras itself cannot build is no model
                    continue


def main() -> None:
    """Prints the operations that no row tries, with a model that holds each."""
    found, tried = emitted(), {row.op for row in rows()}
    missing = {op: name for op, name in sorted(found.items()) if op not in tried}
    print(f"{len(found)} operations, {len(missing)} without a row")
    for op, name in missing.items():
        print(f"  {op}, in {name}")


if __name__ == "__main__":
    main()
