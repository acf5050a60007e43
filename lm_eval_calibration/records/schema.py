"""Types of what is read from JSON: nothing of another type, and no positive log-likelihood, passes for a number."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, get_args, get_origin

import msgspec

ROUNDING = 1e-3
"""A log-probability may be that much above 0: what low precision makes of 0."""

LogProb = Annotated[float, msgspec.Meta(le=ROUNDING)] | None
"""In nats; null stands for minus infinity, which JSON has not."""

Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

_WHAT = re.compile(r"Expected (.*?)(?:, got (.*?))?(?: - at (?:key in )?`\$(.*)`)?$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[(\.\.\.)\]")


def form_of(name: str, types: Mapping[str, Any], required: frozenset[str] = frozenset()) -> type[msgspec.Struct]:
    """Return a schema with these keys; others may be there, too.

    Args:
        name: of the schema.
        types: key to type.
        required: keys that must be there.
    """
    members: list[tuple[str, Any, Any]] = []
    for i, (key, kind) in enumerate(types.items()):
        attribute = key if key.isidentifier() else f"field_{i}"
        default = {} if key in required else {"default": None}
        members.append((attribute, kind, msgspec.field(name=key, **default)))
    return msgspec.defstruct(name, members, kw_only=True, gc=False)


def json_type(kind: Any, name: str = "") -> Any:
    """Return what stands in JSON for a dataclass's field of a type; ``name`` is the field's."""
    if is_dataclass(kind) and isinstance(kind, type):
        own = {f.name: f for f in fields(kind)}
        needed = {n for n, f in own.items() if f.default is MISSING and f.default_factory is MISSING}
        types = {n: json_type(f.type, n) for n, f in own.items()}
        return form_of(kind.__name__, types, frozenset(needed - _MAY_LACK))
    arguments = tuple(json_type(part, name) for part in get_args(kind))
    origin = get_origin(kind)
    if origin is UnionType:
        return reduce(or_, arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return list[arguments[0]]  # type: ignore[valid-type]
    if origin is Mapping:
        return dict[arguments]  # type: ignore[misc, valid-type]
    return _number(kind, name)


def _number(kind: Any, name: str) -> Any:
    """The type of a number, with the range of what goes by such a name."""
    if kind is int:
        return Int
    if kind is float and "log_" in name:
        return LogProb
    return _OF_NAME.get(name, kind) if kind in (float, str) else kind


_OF_NAME: dict[str, Any] = {
    "large_probs": Annotated[float, msgspec.Meta(ge=0, le=1 + ROUNDING)],
    "kept_from": Annotated[float, msgspec.Meta(gt=0, le=1)],
    "cluster": Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{1,16}$")],
}

_MAY_LACK = {"correct", "confidence", "log_likelihood"}
"""Fields that stand elsewhere in JSON or, where they are null, nowhere."""


def check(data: Any, form: type[msgspec.Struct]) -> None:
    """Raise ValueError naming field and value where data are not of a form."""
    try:
        msgspec.convert(data, form)
    except msgspec.ValidationError as error:
        raise ValueError(_named(str(error), data)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _named(text: str, data: Any) -> str:
    found = _WHAT.match(text)
    if not found:
        return text.replace(" - at `$.", " in `").replace("`", "'")
    expected, _, path = found.groups()
    expected = expected.replace("`", "").replace(" | ", " or ")
    value: Any = data
    field = (path or "").lstrip(".") or "the value"
    for key, index, unknown in _STEP.findall(path or ""):
        if unknown or not isinstance(value, dict | list):
            return f"{field} is not {expected}"
        value = value[int(index)] if isinstance(value, list) else value.get(key)
    shown = repr(value)
    return f"{field} is {shown if len(shown) < 60 else shown[:57] + '...'}, not {expected}"
