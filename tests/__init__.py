"""Tests of probegen, and of what stands beside it."""

import gc

# Objects that are made before Python looks for garbage; 700 by default. What is imported stays, and
# to look through it again and again is a quarter of the imports; what models and graphs leave is
# looked for more rarely, which takes a twelfth off the whole.
gc.set_threshold(50_000)
