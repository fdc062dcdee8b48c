"""What each command's `--help` ends with: examples, exit statuses, and where to read on."""

from __future__ import annotations

from collections.abc import Mapping

# Beside what click does by itself: 2 for a wrong use, 130 after Ctrl-C.
DONE = "0 done; 1 not done, and standard error says why; 2 wrong use"


def epilog(examples: Mapping[str, str], read: str, status: str = DONE) -> str:
    """The text for `epilog=`. `examples`: command lines, and what each is for; `read`: a document and a heading in it."""
    lines = "\n".join(f"  {line}" + (f"\n      {what}" if what else "") for line, what in examples.items())
    return f"\b\nExamples:\n{lines}\n\n\b\nExit status:\n  {status}\n\n\b\nRead on:\n  {read}"
