"""Texts that somebody has taken apart wrongly, and what TensorFlow makes of them."""

import numpy as np
import tensorflow as tf

from probegen.parity.texts import NASTY

#: Those of the verification, and more of each kind.
TEXTS = [
    *NASTY,
    "I\u0307 i\u0307 \u0131 \u0130 \u017f \u2126 \u1e9e\u00df \u0149 \u01f0",
    "a\u0300\u0301\u0302 \u1100\u1161\u11a8 \uac01 \u0e01\u0e33 \u0ba8\u0bbf",
    "\U0001f3f4\U000e0067\U000e0062\U000e007f\U0001f1e9\U0001f1ea \u261d\U0001f3ff",
    "a\u2028b\u2029c\u0085d\x1ce\x1df\x1eg\x1fh\u1680i\u180ej\u202fk\u205fl",
    "..,!?;:'\"()[]{}<>@#$%^&*-_=+\\|/`~ x\u2019s \u2010\u2011\u2212 \u066a \u060c",
    "\x01\x02\x08\x0e\x1b[0m\x7f \x00 \x00\x00",
    "\ud7ff\ue000\ufffd\uffff\U0010ffff",
    "The cat SAT on a the mat, the Cat's mat.",
]


def as_array(texts):
    """Bytes as objects, `[batch]`, as the runtime hands them to tokenizers."""
    array = np.empty(len(texts), object)
    array[:] = [text.encode() if isinstance(text, str) else text for text in texts]
    return array


def as_tensor(texts):
    return tf.constant(as_array(texts).tolist(), tf.string)
