"""Writes `methods.py`: every tool of the registry as a method with its docstring and typed keyword arguments.

    python -m neuronaut.agent.api.written

A test compares what is written with the registry.
"""

import inspect
import subprocess
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from neuronaut.tools.registry import Tool, registry

WIDTH = 112  # characters of a line of a docstring, before it is indented
HEAD = '''"""The tools as methods, written from the registry by `python -m neuronaut.agent.api.written`: change the tools instead."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from neuronaut.agent.api.outputs import ToolOutput


class ToolMethods(abc.ABC):
    """Every tool that a person may call, as a method of `Lab`; nothing that they find is recorded."""

    @abc.abstractmethod
    def tool(self, name: str, /, **args: Any) -> ToolOutput:
        """What a tool finds."""
'''


def source() -> str:
    """The module, not yet formatted. Tools that open test text are left out: `Lab.ask` runs them."""
    tools = [tool for tool in registry().values() if not tool.opens_test_text]
    return HEAD + "".join(method(tool) for tool in tools)


def method(tool: Tool) -> str:
    """A tool as a method: what is needed first, the rest by keyword."""
    fields = tool.args.model_fields
    needed = [f"{name}: {annotation(one.annotation)}" for name, one in fields.items() if one.is_required()]
    rest = [
        f"{name}: {annotation(one.annotation)} = {_default(one)}"
        for name, one in fields.items()
        if not one.is_required()
    ]
    given = ", ".join(["self", *needed, *(["*", *rest] if rest else [])])
    passed = "".join(f", {name}={name}" for name in fields)
    doc = textwrap.indent("\n".join(_doc(tool)), " " * 8).strip()
    return f'''
    def {tool.name}({given}) -> ToolOutput:
        """{doc}
        """
        return self.tool({tool.name!r}{passed})
'''


def _doc(tool: Tool) -> Iterator[str]:
    """The docstring of the tool, and that of its arguments, as the lines of a docstring."""
    yield from _lines(tool.doc)
    if tool.args.model_fields and tool.args.__doc__:
        yield ""
        yield from _lines(tool.args.__doc__)


def _lines(doc: str) -> Iterator[str]:
    quoted = inspect.cleandoc(doc).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    for line in quoted.splitlines():
        yield from textwrap.wrap(line, WIDTH) or [""]


def _default(one: FieldInfo) -> str:
    assert one.default is not PydanticUndefined
    return repr(one.default)


def annotation(kind: Any) -> str:
    """A type as a person gives values of it: sequences for tuples, mappings for models."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return annotation(args[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    if origin in (Union, types.UnionType):
        return " | ".join(annotation(one) for one in args)
    if origin is tuple:
        inner = list(dict.fromkeys(annotation(one) for one in args if one is not Ellipsis))
        return f"Sequence[{' | '.join(inner)}]"
    if kind is type(None):
        return "None"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "Mapping[str, Any]"
    if kind in (str, int, float, bool):
        return str(kind.__name__)
    raise TypeError(f"no way is known to write the type {kind!r}: add it here")


def main() -> None:
    """Write the module beside this one."""
    file = Path(__file__).with_name("methods.py")
    file.write_text(source(), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(file)], check=True)


if __name__ == "__main__":
    main()
