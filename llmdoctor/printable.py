"""A report that can be rendered: what the functions of the Python API return."""

from __future__ import annotations

from dataclasses import dataclass, fields

from llmdoctor.core.report import Report


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PrintableReport(Report):
    """A report with its renderers.

    `findings`, `result`, `verdict` and `skipped` are what programs read; `str(report)` is what the command prints, and a notebook shows the
    page that `--format html` writes.
    """

    @classmethod
    def of(cls, report: Report) -> PrintableReport:
        """Return `report` with its renderers."""
        return cls(**{field.name: getattr(report, field.name) for field in fields(report)})

    def to_text(self, width: int = 80, color: bool = False) -> str:
        """Return what the command prints on a screen of `width` columns."""
        return self._render("text", width, color)

    def to_json(self) -> str:
        """Return the JSON report of the published schema (llmdoctor/schema/report.schema.json), indented by two."""
        return self._render("json")

    def to_html(self) -> str:
        """Return a self-contained HTML page, in ASCII."""
        return self._render("html")

    def to_markdown(self) -> str:
        """Return markdown for a comment on a pull request."""
        return self._render("markdown")

    def to_sarif(self) -> str:
        """Return a SARIF 2.1.0 log."""
        return self._render("sarif")

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        verdict = self.verdict
        return f"<llmdoctor {self.command}: {verdict.status}: {verdict.text}>"

    def _repr_html_(self) -> str:
        """Return the page in a frame of its own, so that neither its styles nor those of the notebook reach the other."""
        from llmdoctor.report.markup import attribute

        page = attribute("srcdoc", self.to_html())
        return f'<iframe sandbox{page} style="width:100%;height:32rem;border:1px solid #8888;resize:vertical" title="llmdoctor"></iframe>'

    def _render(self, format: str, width: int = 80, color: bool = False) -> str:
        from llmdoctor.report import WITH_RULES, Style, render
        from llmdoctor.rules import all_rules

        return render(self, format, Style(width=width, color=color), all_rules() if format in WITH_RULES else ())
