"""completion: the script that lets a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from pairing_server.cli.epilog import epilog


@click.command(
    epilog=epilog(
        {
            "pairing-server completion bash > ~/.local/share/bash-completion/completions/pairing-server": "",
            'pairing-server completion zsh > "${fpath[1]}/_pairing-server"': "",
            "pairing-server completion fish > ~/.config/fish/completions/pairing-server.fish": "",
        },
        "docs/operations.md, Installing",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script with which the SHELL completes commands and options.

    Save it where the shell looks for such scripts.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"There is no completion for {shell}.")
    root = ctx.find_root().command
    click.echo(kind(root, {}, "pairing-server", "_PAIRING_SERVER_COMPLETE").source())
