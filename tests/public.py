"""What lognet publishes: the names in `__all__` of its public packages, and what the modules among them define."""

import importlib
import inspect
import types
from typing import Any

PACKAGES = (
    *("lognet.convert", "lognet.measure", "lognet.saving"),  # their most used names stand in lognet too
    *("lognet", "lognet.models", "lognet.nn", "lognet.optim", "lognet.quant", "lognet.sweep"),
)


def public_names() -> dict[str, Any]:
    """Full name -> object; modules among them stand beside what they define."""
    names: dict[str, Any] = {}
    for package in PACKAGES:
        names.update(_members(importlib.import_module(package), package))
    return names


def _members(module: types.ModuleType, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in getattr(module, "__all__", None) or _defined(module):
        value = getattr(module, name)
        found[f"{prefix}.{name}"] = value
        if isinstance(value, types.ModuleType):
            found.update(_members(value, f"{prefix}.{name}"))
    return found


def _defined(module: types.ModuleType) -> list[str]:
    """The public classes and functions of a module without `__all__`."""
    return [
        name
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and not name.startswith("_")
        and value.__module__ == module.__name__
    ]
