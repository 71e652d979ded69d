"""Imports without what they would take along for nothing: all ranks start at once, and each pays for it."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

#: What msgspec imports for types that no message of dft has, and the attributes that it takes from each.
#: None: all of it is in ``typing`` from Python 3.11 on, in an eighth of the time.
_NEEDLESS: dict[str, dict[str, object] | None] = {
    "typing_extensions": None,
    "uuid": {"UUID": type("UUID", (), {}), "SafeUUID": SimpleNamespace(unknown=None)},
    "decimal": {"Decimal": type("Decimal", (), {})},
    "textwrap": {},
}


def import_msgspec() -> None:
    """Import msgspec in three quarters of its time; what it did without can be imported afterwards."""
    hidden = [name for name in _NEEDLESS if name not in sys.modules]
    for name in hidden:
        attributes = _NEEDLESS[name]
        stand_in = ModuleType(name)
        stand_in.__dict__.update(attributes or {})
        # Python takes None for: there is no such module.
        sys.modules[name] = stand_in if attributes is not None else None  # type: ignore[assignment]
    try:
        import msgspec  # noqa: F401
    except (AttributeError, ImportError):
        pass  # another version, which looks for more in them: it is imported as it comes
    finally:
        for name in hidden:
            del sys.modules[name]
