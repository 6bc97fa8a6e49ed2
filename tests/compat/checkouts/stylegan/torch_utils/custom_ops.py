"""Builds plugins; that of a fork's own op is all that is left to it."""

verbosity = "brief"


def get_plugin(module_name, sources, **build_kwargs):
    return f"{module_name} built from {', '.join(sources)}"
