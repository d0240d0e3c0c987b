"""Modules that are made here rather than read from files."""

from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def make_module(name: str, **names: Any) -> ModuleType:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    module.__dict__.update(names)
    return module
