"""How a case went."""

from __future__ import annotations

import dataclasses
import re
import traceback

from probegen.errors import ExportError, ProbegenError, VerificationError

EQUAL = "equal"
REFUSED = "refused"
INVALID = "not a model"
DIFFERS = "differs"
UNCERTIFIED = "not certified"
CRASHES = "crashes"
HANGS = "hangs or dies"

#: What nobody should meet.
FINDINGS = frozenset({DIFFERS, UNCERTIFIED, CRASHES, HANGS})

_MOST = 900
#: What a verification says that found nothing wrong, and nothing to hold the artefact against.
_NOTHING_TO_COMPARE = ("cannot be verified here", "itself gives values that are not finite")
#: What an export says that wrote a file which is none.
_BROKEN = ("cannot be run here", "the exported graph is not valid ONNX")
#: Stages of a case in which one of our own errors is a refusal; later on it is a fault.
_REFUSING = ("inspect", "plan", "compile")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a case went.

    Attributes:
        key: of the case.
        verdict: one of the words above.
        reason: what explains it, without what differs from case to case.
        witnessed: how many attributions were compared with an independent witness.
        detail: the traceback of an error that nobody meant to raise.
        code: a program that shows it, cut down.
    """

    key: str
    verdict: str
    reason: str = ""
    witnessed: int = 0
    detail: str = ""
    code: str = ""

    @property
    def is_finding(self) -> bool:
        """Whether it is a fault."""
        return self.verdict in FINDINGS

    @property
    def kind(self) -> str:
        """The verdict and the reason without numbers and names: alike for one fault."""
        text = re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", self.reason)
        text = re.sub(r"\d+(\.\d+)?(e[-+]?\d+)?", "#", text)
        return f"{self.verdict}: {text[:120]}"


def of_error(
    key: str, error: Exception, stage: str, *, excused: str | None = None, code: str = ""
) -> Outcome:
    """Returns the outcome of a case that raised an error although its model is one.

    Args:
        key: of the case.
        error: what was raised.
        stage: in which it was.
        excused: what a refusal says that writes a file which cannot be run and yet is no fault.
        code: a program that shows it.
    """
    told = signature(error)
    if isinstance(error, VerificationError):
        untold = any(words in str(error) for words in _NOTHING_TO_COMPARE)
        return Outcome(key, REFUSED if untold else UNCERTIFIED, told, code=code)
    if isinstance(error, ExportError):
        why = str(error)
        broken = any(words in why for words in _BROKEN) and (excused is None or excused not in why)
        return Outcome(key, UNCERTIFIED if broken else REFUSED, told, code=code)
    if isinstance(error, ProbegenError):
        verdict = REFUSED if stage in _REFUSING else CRASHES
        return Outcome(key, verdict, f"{stage}: {told}", code=code)
    # What nobody meant to raise is what is looked for.
    detail = "".join(traceback.format_exception(error))
    return Outcome(key, CRASHES, f"{stage}: {told}", detail=detail, code=code)


def signature(error: BaseException) -> str:
    """Returns an error on one line: its class, its message, and the place in probegen."""
    message = " ".join(re.sub(r"\S*/([\w.]+\.(onnx|keras|py))", r"\1", str(error)).split())
    places = [f for f in traceback.extract_tb(error.__traceback__) if "probegen" in f.filename]
    place = (
        f" [{places[-1].filename.rpartition('probegen/')[2]}:{places[-1].name}]" if places else ""
    )
    return f"{type(error).__name__}: {message[:_MOST]}{place}"
