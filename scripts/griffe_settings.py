"""Put the settings of `config.py` into the reference: a setting's meaning, bounds and default stand in its field.

An extension of griffe, which reads the docstrings for mkdocstrings (`mkdocs.yml`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import griffe
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from napari_sparseseg import config

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_BOUNDS = {
    Ge: ("ge", "from {}"),
    Gt: ("gt", "above {}"),
    Le: ("le", "up to {}"),
    Lt: ("lt", "below {}"),
    MinLen: ("min_length", "at least {} of them"),
    MaxLen: ("max_length", "at most {}"),
}


class Settings(griffe.Extension):
    """Describes the fields of each config in the section Attributes of its docstring."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Replace the fields, which have no docstrings, by a section that describes them."""
        model = getattr(config, cls.name, None)
        if cls.module.path != config.__name__ or cls.docstring is None or not hasattr(model, "model_fields"):
            return
        lines = [cls.docstring.value, "", "Attributes", "----------"]
        for name, field in model.model_fields.items():
            lines += [f"{name} : {cls[name].annotation}", f"    {_meaning(field)}"]
            del cls.members[name]
        cls.docstring.value = "\n".join(lines)


def _meaning(field: FieldInfo) -> str:
    """One line: title, description, default and bounds."""
    bounds = []
    for bound in field.metadata:
        attribute, text = _BOUNDS.get(type(bound), ("", ""))
        if text:
            bounds.append(text.format(getattr(bound, attribute)))
    limits = f" ({', '.join(bounds)})" if bounds else ""
    return f"**{field.title}.** {field.description} Default: `{field.default!r}`{limits}."
