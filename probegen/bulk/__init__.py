"""Bulk: an artefact on more samples than fit into memory, a record of each, to go on where it was.

`inputs/` reads, `stores/` writes, each with one format a file; `job.run` goes between.
"""

from __future__ import annotations

from probegen.bulk.inference import Asked
from probegen.bulk.job import BATCH_SIZE, RECORD, STOP, Summary, run
from probegen.bulk.records import Records
from probegen.bulk.results import Results, holds_records

__all__ = [
    "BATCH_SIZE",
    "RECORD",
    "STOP",
    "Asked",
    "Records",
    "Results",
    "Summary",
    "holds_records",
    "run",
]
