"""The one error that loading data raises, and the line that names the missing extra."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be found, read or trained on. The message says what was given and what to do."""


def missing_extra(package: str, purpose: str) -> DataError:
    return DataError(f"{purpose} needs {package}, which is not installed: run  pip install 'gan-fast[train]'")
