"""The options that choose events: those of the URL, made from the same schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import click
from marshmallow import ValidationError

from pairing_server.audit.query import Question
from pairing_server.web.audit.questions import AuditFilter, question_of

Command = TypeVar("Command", bound=Callable[..., Any])

_FILTER = AuditFilter()


def filters(command: Command) -> Command:
    """Give the command the options; it is called with their texts, for `question`."""
    for name, field in reversed(_FILTER.fields.items()):
        described = str(field.metadata["description"])
        option = click.option(f"--{name}", metavar=name.upper(), multiple=name == "event", help=described)
        command = option(command)
    return command


def question(given: Mapping[str, Any], now: datetime) -> Question:
    """What the options ask. Raises BadParameter, which names the option."""
    texts = {**given, "event": ",".join(given["event"])}
    try:
        loaded = _FILTER.load({name: text for name, text in texts.items() if text})
    except ValidationError as error:
        name, faults = next(iter(error.messages_dict.items()))
        raise click.BadParameter(" ".join(faults), param_hint=f"--{name}") from None
    return question_of(loaded, now)
