"""The sweep of TensorFlow operations: each converted alone, run, and compared."""
