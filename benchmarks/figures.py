"""Figures, their budgets, and the table of both."""

import dataclasses
import statistics


@dataclasses.dataclass
class Figure:
    """`value` and `budget` have the same unit; without a budget the figure is only printed."""

    name: str
    value: float | None
    unit: str = ""
    budget: float | None = None
    #: Digits after the point.
    digits: int = 0
    #: How the figure was obtained, or why there is none.
    note: str = ""

    @property
    def verdict(self):
        if self.value is None:
            return "not measured"
        if self.budget is None:
            return ""
        return "met" if round(self.value, self.digits) <= self.budget else "MISSED"

    def text(self, number):
        return "" if number is None else f"{number:.{self.digits}f} {self.unit}".strip()


def table(figures):
    """The lines of all figures beside their budgets."""
    rows = [("figure", "measured", "budget", "", "")]
    rows += [(f.name, f.text(f.value), f.text(f.budget), f.verdict, f.note) for f in figures]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return [f"{name:{widths[0]}}  {value:>{widths[1]}}  {budget:>{widths[2]}}  "
            f"{verdict:{widths[3]}}  {note}".rstrip()
            for name, value, budget, verdict, note in rows]


def p90(values):
    return statistics.quantiles(values, n=10, method="inclusive")[-1]
