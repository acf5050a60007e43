"""Runs the parts of a program in one module, and doesn't believe everything. Part of the launcher.

The answer of a model and its check share a process, so what the answer has changed the check may see. What it changed
in the modules of this Python is put back before the check, and an ``==`` in an ``assert`` is believed only of objects
that are not equal to everything. A program that is written to deceive this very judge can still do it.
"""

import builtins
import math
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

NAMED = (AssertionError, MemoryError, SystemExit)
"""Errors that the caller tells apart by their names, whatever a program calls its own."""

AST = 0x400  # ast.PyCF_ONLY_AST: the module `ast` would take longer to load than most programs to run
FUTURE = 0x1FE0000  # flags of code objects that stand for its `from __future__` imports
SAME, AS_BEFORE = "<same>", "<as before>"
"""Names of our functions in a program's module: none that a program can write."""

BUILT_IN: "Any" = type(int.__eq__)
CONTAINERS = (list, tuple, set, frozenset, dict)
LARGE, DEEP = 10_000, 20
"""Values in a container, and containers in each other, up to which these are looked through."""


def run(parts: "Sequence[str]", path: "list[str]", token: str) -> str:
    """Execute the parts of a program in a module of its own; return the token if it came to its end, else the error."""
    process = os.getpid()
    os.environ.clear()
    sys.argv, sys.path = [""], path
    module = sys.modules["program"] = type(sys)("program")
    before = {
        name: (loaded, {key: value for key, value in vars(loaded).items() if callable(value)})
        for name, loaded in sys.modules.items()
        if loaded is not None
    }
    names = module.__dict__ | {SAME: same, AS_BEFORE: put_back_of(before)}
    module.__dict__.update(names)
    flags = 0
    try:
        for number, part in enumerate(parts):
            if number:
                put_back(before)
                module.__dict__.update({SAME: same, AS_BEFORE: names[AS_BEFORE]})
            code = compiled(part, flags)
            flags |= code.co_flags & FUTURE
            exec(code, module.__dict__)
    except BaseException as error:
        kind = next((name for name in NAMED if issubclass(type(error), name)), type(error)).__name__
        try:
            return f"{kind}: {' '.join(str(error).split())}"
        except BaseException:  # its text may come from the program's code
            return kind
    if os.getpid() != process:
        os._exit(1)  # a child that ran on to the end is not the program
    return token


def compiled(source: str, flags: int) -> "Any":
    """Compile a part by itself (a backslash at the end of one joins no line of the next), its asserts checked."""
    tree = compile(source, "<program>", "exec", flags=flags | AST, dont_inherit=True)  # not our __future__
    if "assert" in source:
        check_asserts(tree, compile("f('')", "", "exec", flags=AST).body[0])
    try:
        return compile(tree, "<program>", "exec", flags=flags, dont_inherit=True)
    except RecursionError:  # a source may be nested deeper than its tree may be
        return compile(source, "<program>", "exec", flags=flags, dont_inherit=True)


def check_asserts(tree: "Any", example: "Any") -> None:
    """Let each ``assert a == b`` ask :func:`same`, and each first put back the functions that it names, in place.

    Args:
        tree: of a program.
        example: a statement, the call of a function with a text, from which the types of nodes are taken.
    """
    statement, make_call = type(example), type(example.value)
    name, constant = type(example.value.func), type(example.value.args[0])

    def our(function: str, arguments: "list[Any]", where: "Any") -> "Any":
        place = places(where)
        load = type(example.value.func.ctx)()
        return make_call(name(function, load, **place), arguments, [], **place)

    def ours(test: "Any") -> "Any":
        if type(test).__name__ == "Compare" and len(test.ops) == 1 and type(test.ops[0]).__name__ == "Eq":
            return our(SAME, [test.left, test.comparators[0]], test)
        if type(test).__name__ == "BoolOp" and type(test.op).__name__ == "And":
            test.values = list(map(ours, test.values))
        return test

    waiting = [tree]
    while waiting:
        node = waiting.pop()
        for key in node._fields:
            value = getattr(node, key, None)
            if not isinstance(value, list):
                if hasattr(value, "_fields"):
                    waiting.append(value)
                continue
            changed = []
            for child in value:
                if type(child).__name__ == "Assert":
                    used = [constant(text, **places(child)) for text in called(child.test)]
                    if used:
                        changed.append(statement(our(AS_BEFORE, used, child), **places(child)))
                    child.test = ours(child.test)
                elif hasattr(child, "_fields"):
                    waiting.append(child)
                changed.append(child)
            setattr(node, key, changed)


def places(node: "Any") -> "dict[str, int]":
    """Return where in the source a node stands."""
    return {key: getattr(node, key) for key in ("lineno", "col_offset", "end_lineno", "end_col_offset")}


def called(node: "Any") -> "set[str]":
    """Return the names of the functions that an expression calls."""
    found, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        if type(node).__name__ == "Call":
            found.add(getattr(node.func, "attr", getattr(node.func, "id", "")))
        for key in node._fields:
            value = getattr(node, key, None)
            waiting += [one for one in (value if isinstance(value, list) else [value]) if hasattr(one, "_fields")]
    return found - {""}


def put_back(before: "dict[str, Any]") -> None:
    """Give the modules of this Python the functions and types back that they had before the program."""
    for name, (module, contents) in before.items():
        if name not in ("program", "__main__"):
            sys.modules[name] = module
            names = vars(module)
            if any(names.get(key) is not value for key, value in contents.items()):
                names.update(contents)


def put_back_of(before: "dict[str, Any]") -> "Any":
    """Return a function that gives ``math`` and the built-in functions some names back."""
    kept = [(vars(module), before[module.__name__][1]) for module in (math, builtins)]

    def as_before(*names: str) -> None:
        for name in names:
            for now, contents in kept:
                if name in contents and now.get(name) is not contents[name]:
                    now[name] = contents[name]

    return as_before


def same(a: "Any", b: "Any") -> "Any":
    """Return ``a == b``, but False where one of them is an object that is equal to anything else as well."""
    result = a == b
    if result is not False and (equals_anything(a, b) or equals_anything(b, a)):
        return False
    return result


def equals_anything(value: "Any", beside: "Any", depth: int = 0) -> bool:
    """Return whether a value (or one in it) with an ``==`` of its own equals what differs from the other value."""
    if type(value) in CONTAINERS and len(value) <= LARGE and depth < DEEP:
        some = [*value, *value.values()] if type(value) is dict else list(value)
        ordered = type(value) is type(beside) and type(value) in (list, tuple) and len(value) == len(beside)
        others = list(beside) if ordered else [None] * len(some)
        return any(equals_anything(v, o, depth + 1) for v, o in zip(some, others, strict=True))
    if type(type(value).__eq__) is BUILT_IN:
        return False
    for different in (another(beside), object()):
        try:
            if value == different:
                return True
        except Exception:  # it says so of an array, say, which is no one truth
            return False
    return False


MORE = {str: "\0", bytes: b"\0", list: [0], tuple: (0,)}
"""What is put at the end of a value."""


def another(value: "Any") -> "Any":
    """Return a value of the same type that is another."""
    if isinstance(value, int | float | complex):
        return value * 2 + 1
    if isinstance(value, set | frozenset):
        return {*value, object()}
    if isinstance(value, dict):
        return {**value, object(): 0}
    more = next((end for kind, end in MORE.items() if isinstance(value, kind)), None)
    return object() if more is None else value + more
