"""The texts that nodes of a file know, by the text input that they read."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from probegen.graph.core.values import constant_of


def known_words(graph: ir.Graph, inputs: list[ir.Value]) -> dict[str, tuple[str, ...]]:
    """Returns for each input of text what nodes compare it with or look it up by.

    Encoders of categories know theirs (`cats_strings`, `keys_strings`), comparisons a constant.
    An input is followed as long as it is text.
    """
    found = {}
    for given in inputs:
        if given.dtype != ir.DataType.STRING:
            continue
        texts = {given}
        words: dict[str, None] = {}
        for node in graph:
            if texts.isdisjoint(node.inputs):
                continue
            words.update(dict.fromkeys(_words(node)))
            texts.update(v for v in node.outputs if v.dtype == ir.DataType.STRING)
        found[str(given.name)] = tuple(words)
    return found


def _words(node: ir.Node) -> Iterator[str]:
    """Yields the texts of a node's attributes and constants."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.STRINGS:
            yield from attribute.as_strings()
    for value in node.inputs:
        constant = None if value is None else constant_of(value)
        if constant is not None and constant.dtype.kind in "OSU":
            yield from (w.decode() if isinstance(w, bytes) else str(w) for w in constant.flat)
