"""The rule of our own mark (see `probegen.graph.core.marks`): an identity."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from probegen.graph.autodiff import Rule
from probegen.graph.core.marks import MARK, MARK_DOMAIN
from probegen.graph.vjp.common import Local, unary


def _mark(v: Local) -> ir.Value:
    return v.g


RULES: Mapping[str, Rule] = {f"{MARK_DOMAIN}::{MARK}": unary(_mark)}
