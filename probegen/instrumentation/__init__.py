"""Keras surgery: watch a model's calls, plan the probes, differentiate with TensorFlow."""
