"""What every command shares: global options, the workspace they describe, the parameter types that complete names."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from grokkit_cli.render import only_json

if TYPE_CHECKING:
    from grokkit_core.plugins import PluginHost
    from grokkit_core.workspace import Workspace

Function = TypeVar("Function", bound=Callable[..., Any])


class Session:
    """The global options of one command line, and the workspace that they make."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.paths: list[str] = []
        self.plugins_enabled = True
        self.quiet = quiet

    def add(self, library: tuple[str, ...] = (), no_plugins: bool = False, debug: bool = False) -> None:
        """Take in global options, whether they stood before or after the command."""
        self.paths.extend(library)
        self.plugins_enabled = self.plugins_enabled and not no_plugins

    @cached_property
    def host(self) -> PluginHost:
        """The plugins; each faulty one is named on stderr, once."""
        from grokkit_core.plugins import host

        found = host(self.plugins_enabled)
        for plugin in [] if self.quiet else found.faults():
            print(f"grokkit: {plugin.complaint}", file=sys.stderr)
        return found

    @cached_property
    def workspace(self) -> Workspace:
        """The library and the plugins."""
        from grokkit_core.workspace import Workspace

        return Workspace.open(self.paths, plugins=self.host)


def common_options(function: Function) -> Function:
    """The global options, accepted by the group and by every command."""
    for option in (
        click.option("--debug", is_flag=True, help="Show tracebacks."),
        click.option("--no-plugins", is_flag=True, help="Load no plugins."),
        click.option(
            "--library",
            multiple=True,
            metavar="PATH",
            type=click.Path(),
            help="A library folder (repeatable).",
        ),
    ):
        function = option(function)
    return function


def verb(function: Callable[..., Any]) -> click.Command:
    """A command with the global options and `--json`. The function gets the session and `as_json` first."""

    @click.command(help=function.__doc__, context_settings={"help_option_names": ["-h", "--help"]})
    @click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
    @common_options
    @click.pass_context
    @functools.wraps(function)
    def command(
        ctx: click.Context, /, library: tuple[str, ...], no_plugins: bool, debug: bool, **arguments: Any
    ) -> None:
        session = ctx.ensure_object(Session)
        session.add(library, no_plugins, debug)
        with only_json() if arguments["as_json"] else nullcontext():
            code = function(session, **arguments)
        if isinstance(code, int) and code:
            ctx.exit(code)

    command.name = function.__name__.rstrip("_")
    return command


device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute.",
)


def dtype_option(function: Function) -> Function:
    """`--dtype` for commands that compute."""
    return click.option("--dtype", metavar="DTYPE", help="float32 or float64; default: the cassette's own.")(function)


class _Named(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A name that the shell can complete from what is installed."""

    name = "name"

    def names(self, session: Session) -> list[str]:
        """Everything the name may be."""
        return []

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The known names that start with what was typed."""
        session = Session(quiet=True)  # a complaint would be written over the prompt
        session.add(tuple((ctx.find_root().params.get("library") or ()) + (ctx.params.get("library") or ())))
        return [CompletionItem(name) for name in self.names(session) if name.startswith(incomplete)]


class CassetteRef(_Named):
    """A cassette reference."""

    name = "ref"

    def names(self, session: Session) -> list[str]:
        """Every cassette name."""
        return session.workspace.library.names()


class ComponentName(_Named):
    """The id of a component of one kind; short where that is unique."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name = kind

    def names(self, session: Session) -> list[str]:
        """Every id of the kind."""
        found = [c for p in session.host.plugins for c in p.components if c.kind == self.kind]
        return sorted(component.id.rpartition("/")[2] if self.kind == "recipe" else component.id for component in found)
