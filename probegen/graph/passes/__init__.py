"""Rewrites of the graph, one a file, and the order in which they run.

A pass changes a model in place. `BEFORE` runs on a forward graph before it is differentiated:
it joins what exporters take apart, since a gradient would have to pass the pieces one by one.
`AFTER` runs on the finished graph: it cleans up, and writes what is left in the form that runtimes
are fast at and read right.

Every pass keeps the outputs by order and their values up to rounding, and takes any valid graph of
opset 13 or newer: what it does not know it leaves alone. A pass that needs more says so under
"Needs", as `topological order` and `shapes inferred`, which are both true before `BEFORE` runs.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from probegen.graph.core.marks import remove_marks
from probegen.graph.passes.after.add_before_linear_op import add_before_linear_op
from probegen.graph.passes.after.carry_captures import carry_captures
from probegen.graph.passes.after.combine_phases_late import combine_phases_late
from probegen.graph.passes.after.copy_stacked_images import copy_stacked_images
from probegen.graph.passes.after.drop_casts_back import drop_casts_back
from probegen.graph.passes.after.drop_identities import drop_identities
from probegen.graph.passes.after.drop_unused_initializers import drop_unused_initializers
from probegen.graph.passes.after.join_repeated_nodes import join_repeated_nodes
from probegen.graph.passes.after.keep_blocked_layout import keep_blocked_layout
from probegen.graph.passes.after.make_engine_readable import make_engine_readable
from probegen.graph.passes.after.own_weights_in_loops import own_weights_in_loops
from probegen.graph.passes.after.round_compared_numbers import round_compared_numbers
from probegen.graph.passes.after.round_noted_sums import round_noted_sums
from probegen.graph.passes.after.scale_before_masks import scale_before_masks
from probegen.graph.passes.after.separate_turned_weights import separate_turned_weights
from probegen.graph.passes.after.write_gelu import write_gelu
from probegen.graph.passes.after.write_out_doubles import write_out_doubles
from probegen.graph.passes.after.write_vectors_as_columns import write_vectors_as_columns
from probegen.graph.passes.before.average_before_convolution import average_before_convolution
from probegen.graph.passes.before.drop_fixed_states import drop_fixed_states
from probegen.graph.passes.before.fix_reshape_targets import fix_reshape_targets
from probegen.graph.passes.before.fold_weights import fold_weights
from probegen.graph.passes.before.join_batch_normalisation import join_batch_normalisation
from probegen.graph.passes.before.join_gelu import join_gelu
from probegen.graph.passes.before.join_layer_normalisation import join_layer_normalisation
from probegen.graph.passes.before.join_slices import join_slices
from probegen.graph.passes.before.mark_hard_sigmoids import mark_hard_sigmoids
from probegen.graph.passes.before.merge_into_convolutions import merge_into_convolutions
from probegen.graph.passes.before.merge_into_matrices import merge_into_matrices
from probegen.graph.passes.before.name_open_sizes import name_open_sizes
from probegen.graph.passes.before.pad_within_max_pool import pad_within_max_pool
from probegen.graph.passes.before.pool_globally import pool_globally
from probegen.graph.passes.before.transpose_before_functions import transpose_before_functions
from probegen.graph.passes.before.transpose_input_first import transpose_input_first
from probegen.graph.passes.cancel_transposes import cancel_transposes
from probegen.graph.passes.tidy import (
    make_names_unique,
    remove_unused_nodes,
    remove_unused_opsets,
    sort_topologically,
)

#: Changes a model in place.
Pass = Callable[[ir.Model], None]

#: What is done to a forward graph before it is differentiated, in this order.
BEFORE: tuple[Pass, ...] = (
    drop_fixed_states,
    remove_unused_nodes,  # what handed these states on
    fold_weights,  # bodies read their weights from outside now
    join_slices,
    name_open_sizes,
    fix_reshape_targets,
    join_layer_normalisation,
    transpose_before_functions,
    join_gelu,
    cancel_transposes,
    mark_hard_sigmoids,
    remove_unused_nodes,  # what is read once only counts readers that are needed
    merge_into_matrices,
    transpose_input_first,
    merge_into_convolutions,
    join_batch_normalisation,  # takes what no convolution took
    pool_globally,
    pad_within_max_pool,
    average_before_convolution,
    remove_unused_nodes,
    make_names_unique,
)

#: What is done to the finished graph, in this order.
AFTER: tuple[Pass, ...] = (
    combine_phases_late,  # reads what rules noted on values, before they are replaced
    remove_marks,
    write_gelu,
    drop_identities,
    drop_casts_back,
    cancel_transposes,
    join_repeated_nodes,
    add_before_linear_op,  # compares constants by identity
    remove_unused_nodes,
    remove_unused_opsets,
    sort_topologically,
    scale_before_masks,
    keep_blocked_layout,
    separate_turned_weights,
    carry_captures,
    own_weights_in_loops,
    copy_stacked_images,  # behind drop_identities, which would take the copies away
    write_out_doubles,
    write_vectors_as_columns,
    round_noted_sums,
    round_compared_numbers,
    make_engine_readable,
    remove_unused_nodes,
    drop_unused_initializers,
    make_names_unique,
)


#: Passes that merge layers with what stands before them, or exchange them.
_ACROSS_LAYERS = (merge_into_matrices, average_before_convolution)


def prepare(model: ir.Model, *, keep_layers: bool = False) -> None:
    """Runs `BEFORE` on a forward graph.

    Args:
        keep_layers: leave out what merges layers with what stands before them or exchanges them,
            for backward passes that tell layers apart.
        model: of opset 13 or newer, in topological order, its shapes inferred as far as they can
            be; changed in place.
    """
    for change in BEFORE:
        if not (keep_layers and change in _ACROSS_LAYERS):
            change(model)


def clean(model: ir.Model) -> None:
    """Runs `AFTER` on the finished graph: no mark and no composite operator is left behind.

    Args:
        model: of opset 13 or newer; changed in place.
    """
    for change in AFTER:
        change(model)
