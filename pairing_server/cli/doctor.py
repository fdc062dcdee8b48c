"""doctor: the whole main job against a running server."""

import click


@click.command()
def doctor() -> None:
    """Do a whole pairing against a running server, as two devices would."""
