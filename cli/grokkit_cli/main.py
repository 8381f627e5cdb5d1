"""The group of commands, each imported only when it is used."""

from __future__ import annotations

import importlib
from typing import Any

import click

from grokkit_cli.pipes import reader
from grokkit_cli.session import Session, common_options

COMMANDS = {
    "bench": "time a cassette beside a baseline",
    "compose": "fuse cassettes into one, with a gate",
    "doctor": "check the installation, the libraries and the plugins",
    "export": "write a cassette as a folder, as ONNX or as a torch program",
    "grow": "make a cassette larger or finer without training",
    "import": "copy a cassette folder into the library",
    "list": "the cassettes that are there",
    "new": "write an installable plugin to start from",
    "plugins": "the plugins that are there, and what is wrong with them",
    "remove": "delete a cassette version from the library",
    "report": "write an HTML page: certificates, pictures and lineage of cassettes",
    "run": "predict on a file",
    "show": "a cassette's card: what it computes, how well, where it came from",
    "tasks": "the tasks, recipes, operators, fusions and gates that plugins bring",
    "train": "train a cassette by a recipe",
    "verify": "recompute a certificate and compare it with the recorded one",
}


class LazyGroup(click.Group):
    """Knows its commands by name and help line; loads one only to run it."""

    def make_context(self, *arguments: Any, **named: Any) -> click.Context:
        """As click; `--help` and `--version` print here."""
        with reader():
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: click.Context) -> Any:
        """As click."""
        with reader():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All command names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of that name."""
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"grokkit_cli.commands.{name}_")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click, with the nearest command suggested."""
        from grokkit_core.text import nearest, printable

        if args and args[0] not in COMMANDS:
            raise click.UsageError(f"no command is named '{printable(args[0], 60)}'; {nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Help lines from the table above, so that `--help` imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


def _version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    import platform
    from importlib.metadata import PackageNotFoundError, version

    def of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    click.echo(f"grokkit {of('grokkit')}, torch {of('torch')}, Python {platform.python_version()}")
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show versions and exit.",
)
@common_options
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:
    """Small networks that learned an exact rule: find, check, grow and combine them.

    A cassette is such a network with a manifest of what it computes, for which inputs and how well.
    """
    ctx.obj = Session()
    ctx.obj.add(**options)
