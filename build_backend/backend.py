"""The PEP 517 backend: setuptools' own, except that it asks for the right torch and says in one line what is missing.

An environment that has torch gets an extension built against it, and metadata that it satisfies: nothing is downloaded
and nothing is replaced. One that has none gets the newest torch into the build environment, and metadata that asks for
the same minor version to run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import setuptools
from setuptools import build_meta

from .native_build import OLDEST_SETUPTOOLS, missing_requirements, require_environment
from .torch_environment import BuildError, find_torch, parse_minor, runtime_requirement

Settings = dict[str, Any] | None


def _say_in_one_line(hook: Callable[..., Any], *arguments: Any) -> Any:
    """Run a hook; what a person can mend ends as its message, without the traceback through pip and setuptools."""
    try:
        if parse_minor(setuptools.__version__) < OLDEST_SETUPTOOLS:
            raise BuildError(
                f"the build needs setuptools>={OLDEST_SETUPTOOLS[0]}, found {setuptools.__version__}; "
                f"run: pip install 'setuptools>={OLDEST_SETUPTOOLS[0]},<82'"  # torch 2.11 stops at 82
            )
        return hook(*arguments)
    except BuildError as error:
        sys.exit(f"gan_fast: {error}")


def _build_requirements() -> list[str]:
    torch = find_torch()
    return [*missing_requirements(torch), *([] if torch else [runtime_requirement(None)])]


def _checked(hook: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        require_environment()
        return hook(*arguments)

    return run


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return _say_in_one_line(_build_requirements)


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return _say_in_one_line(_build_requirements)


def get_requires_for_build_sdist(config_settings: Settings = None) -> list[str]:
    return []


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    hook = _checked(build_meta.prepare_metadata_for_build_wheel)
    return _say_in_one_line(hook, metadata_directory, config_settings)


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Settings = None) -> str:
    hook = _checked(build_meta.prepare_metadata_for_build_editable)
    return _say_in_one_line(hook, metadata_directory, config_settings)


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    hook = _checked(build_meta.build_wheel)
    return _say_in_one_line(hook, wheel_directory, config_settings, metadata_directory)


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    hook = _checked(build_meta.build_editable)
    return _say_in_one_line(hook, wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    return _say_in_one_line(build_meta.build_sdist, sdist_directory, config_settings)
