"""Hidden states of recurrent layers over time."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from probegen.artefact.manifest import ANY_SIGN, DRAWN_AS_ACTIVATION
from probegen.methods.axes import Axes
from probegen.methods.base import PAYLOADS, OfLayers, Selector
from probegen.methods.fields import check_bool, check_choice, option


@dataclasses.dataclass(frozen=True)
class States(OfLayers):
    """States of recurrent layers after each step, `[batch, time, unit]`.

    Of every matching recurrent layer, whatever it returns (`return_sequences` or not): the hidden
    state as `states/<path>`, further states as `states/<path>:1` and so on (the cell state of an
    LSTM is `:1`; stacked cells give their states one cell after the other). Convolutional ones are
    `[batch, time, ...positions, channel]`. A Bidirectional layer gives those of its two layers,
    under their paths (`states/bidirectional/forward_lstm`).

    In an ONNX file these are the operators LSTM, GRU and RNN, one with two directions as
    `states/<path>/forward` and `states/<path>/backward`; beyond the end of a sequence
    (`sequence_lens`) its states stay as they are.

    Entry t of the time axis is the state after the step that read entry t of the input, also where
    the layer runs backwards (whose own output is in the order of the steps). A masked step repeats
    the state before it; before the first step that counts that is the initial state.

    With `gates=True` layers of LSTM and GRU cells give their gates as well, `[batch, time, unit]`:
    `states/<path>/input_gate`, `forget_gate`, `candidate`, `output_gate` of an LSTM, and
    `update_gate`, `reset_gate`, `candidate` of a GRU, all after their activation. At a masked step
    they are what the cell computes there, which the layer then leaves out.

    Attributes:
        select: the layers; only recurrent ones are considered.
        gates: give out gates too.
        name: replaces the output name `"states/<path>"`.
        dtype: element type of the payload.
    """

    kind: ClassVar[str] = "states"
    title: ClassVar[str] = "States"
    help: ClassVar[str] = "States of recurrent layers over time; of all if SEL is left out."
    sign: ClassVar[str] = ANY_SIGN
    draw: ClassVar[str] = DRAWN_AS_ACTIVATION
    equation: ClassVar[str] = "state of the layer after each step"
    point: ClassVar[str] = "states"
    of_states: ClassVar[bool] = True

    select: Selector = "*"
    gates: bool = option(False, "Gates")
    name: str | None = None
    dtype: str | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("dtype", self.dtype, PAYLOADS)
        check_bool("gates", self.gates)

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Says that entries of time are in the order of the input."""
        del axes
        return {"order": "input"}
