"""The sweep of TensorFlow operations: each converted alone, run, and compared.

`python -m sweep tensorflow` prints the table. A row is a small function around one operation; it
is converted with fixed sizes, with an open batch and with all sizes open, and run at sizes that
differ. Every operation in tf2onnx' table of handlers, and in ours, has rows or a reason why not.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import tf2onnx.tfonnx  # noqa: F401  fills the table of handlers
from tf2onnx.handler import tf_op

from probegen.sources.keras.to_onnx.handlers import HANDLERS
from sweep.tensorflow_ops.absent import ABSENT
from sweep.tensorflow_ops.row import NO_ROW, Row


@functools.cache
def rows() -> tuple[Row, ...]:
    """Returns all rows, with one for each operation that has none."""
    from sweep.tensorflow_ops import arrays, networks, numbers

    found = [row for module in (numbers, arrays, networks) for row in module.rows()]
    tried = {row.op for row in found}
    found += [Row(op, reason=reason) for op, reason in ABSENT.items() if op not in tried]
    return (*found, *_missing({row.op for row in found}))


def _missing(tried: set[str]) -> Iterator[Row]:
    known = set(tf_op.create_mapping(18, [])) | set(HANDLERS)
    yield from (Row(op, reason=NO_ROW) for op in sorted(known - tried))
