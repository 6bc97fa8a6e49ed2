"""The benchmarks: cases that check agreement before they are timed, and `main`, which is `gan-fast bench`."""

from gan_fast.bench.cases import Case, Contender, WrongResult, all_cases
from gan_fast.bench.command import main
from gan_fast.bench.measure import measure

__all__ = ["Case", "Contender", "WrongResult", "all_cases", "main", "measure"]
