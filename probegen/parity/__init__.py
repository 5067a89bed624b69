"""Artefact against source model: a parity certificate.

Predictions are compared with the source model itself, called as a user calls it; everything
else with TensorFlow's gradients on it, and where those are in doubt with differences of the
model's own scores. `samples` makes the inputs, `reference` gives what is right, `comparison`
judges (it says what each limit protects against), `report` holds the figures and `measuring`
puts them together.
"""

from probegen.parity.comparison import TOLERANCES, compare
from probegen.parity.measuring import measure, require_agreement, verify
from probegen.parity.report import REPORT_COLUMNS, Parity, Report
from probegen.parity.samples import DEFAULT_SAMPLES, generate_samples

__all__ = [
    "DEFAULT_SAMPLES",
    "REPORT_COLUMNS",
    "TOLERANCES",
    "Parity",
    "Report",
    "compare",
    "generate_samples",
    "measure",
    "require_agreement",
    "verify",
]
