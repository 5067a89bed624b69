"""Gradients written out plainly, to compare with."""

import keras
import tensorflow as tf


def plain_gradient(model, x, score):
    """d score(outputs) / d x by an eager tape."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = score(model(x))
    return tape.gradient(value, x).numpy()


def logits(model):
    """The same model without its last activation."""
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.layers[-1].activation = keras.activations.linear
    return clone
