"""The raw gradient (Baehrens et al. 2010)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from probegen.artefact.manifest import SCORE_PER_INPUT
from probegen.methods.base import OfInputs, Selector
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class InputGradient(OfInputs):
    """The raw, signed gradient of the target (Baehrens et al. 2010, JMLR 11, eq. 1).

    Attributes:
        target: the scalar that is differentiated, a sample: `"argmax"` (the largest entry of
            the last axis), a class index, `"input"` (the artefact gets an int32 `[batch]`
            input `target`, -1 meaning argmax), a tuple with an index or None (sum) for each
            non-batch axis of the output, or a callable from the model's outputs (their
            pre-activations with `logits=True`) to one scalar a sample.
        wrt: `"input"` for the model's inputs, an input's name, or a selector of layers. What
            stands for an input of whole numbers is every first floating tensor that is made from
            its values: what its ids look up in embeddings or other tables, each call of them, or
            the cast of its numbers (an image of bytes). Masks, and positions counted along a
            mask, are not explained unless asked for by the input's name. `"states:lstm"` is the
            hidden state of a recurrent layer or operator after each step, `[batch, time, unit]`, by
            the output of that step and by all later ones; what follows `states:` is a glob on the
            names that `pg.States` gives states. At a layer that the cell of a recurrent layer calls
            it is the gradient at its output in each step, `[batch, time, ...]`, by all that the
            step and later ones make of it, 0 at masked steps.
        name: replaces the output name, `"input_gradient/<input name or layer path>"`. An input
            that is looked up in several places has an output for each, called after the
            look-up's layer, with `#k` for its call k.
        output: which output of a model with several, by name or index.
        logits: differentiate the pre-activation where the model ends in softmax or sigmoid.
        per_token: one number for each token, `[batch, time]`, in the place of a vector: `"norm"`,
            the Euclidean length of the vector; `"dot"`, the token's signed share: the gradient
            times the embedding, summed over it. Of methods whose numbers are such products
            already (gradient x input, integrated gradients, relevance), `"dot"` is their sum.
            What holds no tokens (images, features) stays as it is. Padding is 0, where the
            model tells what that is: the manifest says it of each input.
    """

    kind: ClassVar[str] = "input_gradient"
    title: ClassVar[str] = "Input gradient"
    help: ClassVar[str] = "The raw, signed gradient."
    unit: ClassVar[str] = SCORE_PER_INPUT
    equation: ClassVar[str] = "d target / d input"
    paper: ClassVar[str] = "Baehrens et al. 2010, eq. 1"

    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None
