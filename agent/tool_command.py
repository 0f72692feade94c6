"""The command `tool`. Everything heavy is imported when it is needed."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuronaut.agent.options import (
    BackendChoice,
    BackendName,
    CorpusFile,
    Device,
    DeviceChoice,
    Dictionaries,
    Dtype,
    DtypeChoice,
    Heads,
    Json,
    Labels,
    Model,
    Others,
    run_config,
)
from neuronaut.agent.view import print_json
from neuronaut.tools.errors import UserError

if TYPE_CHECKING:
    from neuronaut.agent.config import RunConfig
    from neuronaut.tools.registry import Tool, ToolContext, ToolResult


def tool(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A tool; without one, all are listed.")] = None,
    args: Annotated[str, typer.Argument(help='Arguments as JSON, for example \'{"unit": "8.481"}\'.')] = "{}",
    model: Model = "pocket",
    backend: BackendChoice = BackendName.torch,
    dtype: Dtype = DtypeChoice.float32,
    device: Device = DeviceChoice.cpu,
    corpus: CorpusFile = None,
    dictionary: Dictionaries = None,
    other: Others = None,
    labels: Labels = None,
    head: Heads = None,
    as_json: Json = False,
    arrays: Annotated[Path | None, typer.Option(help="Keep the arrays that the tool made in this .npz file.")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Keep the figures that the tool drew in this folder, as SVG and Plotly JSON.")
    ] = None,
    as_chat: Annotated[
        bool, typer.Option("--chat", help="Its texts are what a user says, put through the model's chat template.")
    ] = False,
    system: Annotated[str | None, typer.Option("--system", help="A system message before it; means --chat.")] = None,
    explain: Annotated[bool, typer.Option("--help", help="Explain the tool and its arguments, and exit.")] = False,
) -> None:
    """Run one tool on the target model, outside any run; nothing is recorded.

    Example: neuronaut tool top_examples '{"unit": "8.481", "k": 5}'
    """
    if name is None:
        if explain:
            print(context.get_help())
        else:
            _list_tools(as_json=as_json)
        return
    from neuronaut.agent.tool_output import help_lines, result_lines
    from neuronaut.tools.registry import find_tool

    wanted = find_tool(name)
    if explain:
        print("\n".join(help_lines(wanted)))
        return
    parsed = wanted.parse(in_chats(wanted, args, system) if as_chat or system is not None else args)
    if wanted.opens_test_text:
        raise UserError(
            f"{name} opens design or confirm text: it is run by `neuronaut ask`, which records what was opened (with "
            "`--llm scripted:FILE` on hypotheses of your own)"
        )
    from neuronaut.agent.config import Budget
    from neuronaut.agent.registered import registered_config

    config = run_config(name, model, corpus, None, None, 0, Budget(), dictionary, backend, dtype, device)
    config = config.model_copy(update=registered_config(other, labels, head))
    result = wanted.run(_context(config), parsed)
    if arrays is not None or figures is not None:
        _keep(result, name, arrays, figures)
    if as_json:
        print_json(_fields(name, result))
    else:
        print("\n".join(result_lines(result)))


def _list_tools(*, as_json: bool) -> None:
    from neuronaut.tools.registry import registry

    if as_json:
        print_json([one.schema() for one in registry().values()])
        return
    for one in registry().values():
        print(f"{one.name:<18} {one.summary}")


def in_chats(tool: "Tool", args: str, system: str | None) -> dict[str, Any] | str:
    """The arguments with each plain text as what a user says, behind a system message if there is one; as they came, if they
    are no JSON object. Refuses a tool that takes no text, or is given none."""
    from neuronaut.tools.chat.messages import as_chat

    fields = [name for name, field in tool.args.model_fields.items() if "Message" in str(field.annotation)]
    try:
        given = json.loads(args)
    except json.JSONDecodeError:
        return args
    if not isinstance(given, dict):
        return args
    if not any(name in given for name in fields):
        takes = f"give {' or '.join(fields)}" if fields else "it takes none"
        raise UserError(
            f"{tool.name} is given no text that could be put through a chat template: {takes}, or leave out --chat"
        )

    def spoken(value: Any) -> Any:
        return [one.model_dump() for one in as_chat(value, system)] if isinstance(value, str) and value else value

    for name in fields:
        if name in given:
            value = given[name]
            given[name] = [spoken(one) for one in value] if isinstance(value, list) else spoken(value)
    return given


def _context(config: "RunConfig") -> "ToolContext":
    from neuronaut.agent.opening import open_corpus, open_target
    from neuronaut.agent.registered import opened
    from neuronaut.tools.registry import ToolContext

    return ToolContext(open_target(config), open_corpus(config, lambda label, line: None), registered=opened(config))


def _keep(result: "ToolResult", name: str, arrays: Path | None, figures: Path | None) -> None:
    from neuronaut.agent.tool_files import save_arrays, save_figures

    if arrays is not None:
        save_arrays(result.arrays, arrays, name)
    if figures is not None:
        save_figures(result.figures, figures, name)


def _fields(name: str, result: "ToolResult") -> dict[str, Any]:
    measurements = [
        {
            "metric": m.metric,
            "value": m.value,
            "unit": m.unit,
            "n": m.n,
            "n_of": m.n_of,
            "ci": m.ci,
            "null": m.null_value,
            "percentile": m.null_percentile,
        }
        for m in result.measurements
    ]
    return {"tool": name, "measurements": measurements, "result": result.payload}
