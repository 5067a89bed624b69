"""One runtime a file: `python -m runs_where.workers.NAME JOB.json ANSWER.json`.

Each runs in a process of its own, often in an environment that has neither probegen nor TensorFlow:
a worker imports numpy, its runtime and `runs_where.exchange`, nothing else.
"""
