"""FarmHash in Python, against TensorFlow's buckets."""

import random

import tensorflow as tf

from probegen.runtime.texts.fingerprint import fingerprint

BUCKETS = 2**31 - 1


def test_every_length():
    drawn = random.Random(0)
    data = [drawn.randbytes(n) for n in (*range(200), 447, 448, 449, 1000)]
    expected = tf.strings.to_hash_bucket_fast(tf.constant(data), BUCKETS).numpy().tolist()
    assert [fingerprint(d) % BUCKETS for d in data] == expected
