"""What do many findings come to? One verdict in plain words: what was examined, what was found, how sure it is, what to
do next, and what was not examined.

Judges decide, witnesses may only raise concern, advisers have no say. A pass is earned: every judge that ran passed the
model, no witness raised concern, and none of them failed to run. An inconclusive witness takes nothing away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from glasshouse.engine.catalogue import VerdictRole
from glasshouse.values.blocks import Metric
from glasshouse.values.findings import Finding, Verdict

State = Literal["answered", "not run", "refused", "internal error"]
"""Refused: it could not run with the inputs it was given."""
OPENING = {
    Verdict.FAIL: "Do not use this model as it is.",
    Verdict.CONCERN: "There is reason for concern.",
    Verdict.PASS: "No check that ran found anything against this model.",
    Verdict.INCONCLUSIVE: "Inconclusive: the checks do not tell whether this model may be trusted.",
}
ADVICE = {
    Verdict.FAIL: "Do not deploy it.",
    Verdict.CONCERN: "Do not deploy it as it is.",
    Verdict.PASS: "Use it as far as these checks go, and keep this report with it.",
    Verdict.INCONCLUSIVE: "Do not take this for a pass.",
}


@dataclass(frozen=True)
class Section:
    """One question of an audit, and what became of it."""

    method: str
    question: str
    role: VerdictRole
    state: State
    why: str = ""
    """Why it did not run or was refused, or which internal error it met."""
    seconds: float = 0.0
    trace: str = ""
    """Where an internal error occurred."""


@dataclass(frozen=True)
class Judgement:
    """The findings of an audit, combined."""

    sections: tuple[Section, ...]
    findings: Mapping[str, Finding]
    """The findings by the name of their method; sections that did not answer have none."""

    @property
    def verdict(self) -> Verdict:
        verdicts = [self.findings[section.method].verdict for section in self._deciding if section.state == "answered"]
        for verdict in (Verdict.FAIL, Verdict.CONCERN):
            if verdict in verdicts:
                return verdict
        judges = [section for section in self._deciding if section.role == "judge" and section.state != "not run"]
        passed = all(
            section.state == "answered" and self.findings[section.method].verdict == Verdict.PASS for section in judges
        )  # fmt: skip
        whole = all(section.state != "internal error" for section in self._deciding)
        return Verdict.PASS if judges and passed and whole else Verdict.INCONCLUSIVE

    @property
    def decision(self) -> str:
        """What the verdict means for whoever must decide."""
        return ADVICE[self.verdict]

    @property
    def headline(self) -> str:
        """One sentence, and the finding that carries it."""
        carrying = self.carrying
        if carrying is None:
            reason = "No check ran that could clear it."
        elif carrying.state == "answered":
            reason = self.findings[carrying.method].headline
        else:
            reason = f"{carrying.method}: {carrying.state} ({carrying.why})."
        return f"{OPENING[self.verdict]} {reason[:1].upper()}{reason[1:]}"

    @property
    def carrying(self) -> Section | None:
        """The section that the verdict rests on: judges before witnesses."""
        ran = [section for section in self._deciding if section.state != "not run"]
        ran.sort(key=lambda section: section.role != "judge")
        alike = [
            section for section in ran
            if section.state == "answered" and self.findings[section.method].verdict == self.verdict
        ]  # fmt: skip
        if self.verdict == Verdict.INCONCLUSIVE:
            silent = [section for section in ran if section.state == "internal error"]
            silent += [section for section in ran if (section.role, section.state) == ("judge", "refused")]
            alike = [*silent, *(section for section in alike if section.role == "judge")]
        return next(iter(alike), None)

    @property
    def answered(self) -> list[Section]:
        """Sections with a finding, what speaks against the model first, advisers last."""
        order = list(reversed(Verdict))

        def rank(section: Section) -> tuple[bool, int]:
            return section.role == "adviser", order.index(self.findings[section.method].verdict)

        return sorted((section for section in self.sections if section.state == "answered"), key=rank)

    def headlines(self) -> list[tuple[str, str]]:
        """Method and headline of every finding, what speaks against the model first."""
        return [(section.method, self.findings[section.method].headline) for section in self.answered]

    def evidence(self) -> list[str]:
        """The number that carries each deciding finding, with its interval and its null."""
        measured = {section.method: self.measured(section.method) for section in self._deciding}
        return [f"{name} ({self.findings[name].verdict}): {text}" for name, text in measured.items() if text]

    def measured(self, method: str) -> str:
        """The first number of a finding, with its interval and its null; empty where it has none."""
        finding = self.findings.get(method)
        metric = next((block for block in finding.blocks() if isinstance(block, Metric)), None) if finding else None
        if metric is None:
            return ""
        return f"{metric.name} {metric.value}{f'; control {metric.null}' if metric.null else ''}"

    def advice(self) -> list[str]:
        """What to do next."""
        findings = [self.findings[section.method].advice for section in self.answered]
        refused = [f"Supply what {section.method} needs: {section.why}"
                   for section in self._deciding if section.state == "refused"]  # fmt: skip
        errors = [f"Report the internal error of {section.method}: {section.why}"
                  for section in self.sections if section.state == "internal error"]  # fmt: skip
        return list(dict.fromkeys([self.decision, *filter(None, findings), *refused, *errors]))

    def power(self) -> list[str]:
        """What a pass of each judge that ran would have caught, as measured; empty where nothing was measured."""
        judges = [section for section in self._deciding if section.role == "judge" and section.method in self.findings]
        measured = {section.method: self.findings[section.method].power for section in judges}
        return [f"{name}: {text}" for name, text in measured.items() if text]

    def not_examined(self) -> list[str]:
        """What was not examined and why, methods with the same reason together."""
        reasons: dict[str, list[str]] = {}
        for section in self.sections:
            if section.state != "answered":
                reason = section.state if section.state == "internal error" else section.why
                reasons.setdefault(reason, []).append(section.method)
        return [f"{', '.join(names)}: {why}" for why, names in reasons.items()]

    @property
    def _deciding(self) -> Sequence[Section]:
        return [section for section in self.sections if section.role != "adviser"]
