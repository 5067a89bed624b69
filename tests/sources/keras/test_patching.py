"""Functions of a library are wrapped while somebody needs it, and come back."""

import types

import pytest

from probegen.sources.keras.patching import Patch, Patches


class Base:
    """Has a method of its own."""

    def name(self):
        return "base"


class Derived(Base):
    """Has the method of its base."""


def marked(original):
    return lambda *args: f"({original(*args)})"


def test_it_is_wrapped_once_however_many_need_it():
    module, patches = types.ModuleType("library"), Patches()
    module.f = own = lambda: "f"
    patch = Patch(module, "f", marked)
    with patches.applied([patch]):
        with patches.applied([patch]):
            assert module.f() == "(f)"
        assert module.f() == "(f)"
    assert module.f is own


def test_the_originals_come_back_after_an_error():
    own, patches, seen = Base.name, Patches(), []

    def fails():
        with patches.applied([Patch(Base, "name", marked)]):
            seen.append(Base().name())
            raise KeyError("in the block")

    with pytest.raises(KeyError, match="in the block"):
        fails()
    assert seen == ["(base)"]
    assert Base.name is own


def test_an_inherited_function_is_wrapped_once():
    patches = Patches()
    with patches.applied([Patch(Base, "name", marked), Patch(Derived, "name", marked)]):
        assert Base().name() == Derived().name() == "(base)"
    assert Base().name() == Derived().name() == "base"
