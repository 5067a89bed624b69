"""Mutation tests: changes the code in one place at a time and sees whether its tests notice.

`python -m mutants --help` says what can be asked for; `make mutants` draws a few modules at random.
The changes are those of cosmic-ray (an operator, a comparison, a number, a condition, a loop).
cosmic-ray's own runner starts Python anew for each change, which costs more than the tests where
TensorFlow has to be imported; here each change is a fork of a process that has imported it.
"""
