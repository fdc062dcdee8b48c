"""What each command's `--help` ends with: examples, exit statuses, and where to read on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# Beside what click does by itself: 2 for a wrong use, 130 after Ctrl-C.
DONE = "0 done; 1 not done, and standard error says why; 2 wrong use"

# A wheel has the documents in it; in a checkout they are in docs/.
INSTALLED = Path(__file__).resolve().parents[1] / "documents"


def document(place: str) -> str:
    """Where "docs/operations.md, Settings" is on this machine."""
    return place.replace("docs", str(INSTALLED), 1) if INSTALLED.is_dir() else place


def epilog(examples: Mapping[str, str], read: str, status: str = DONE) -> str:
    """The text for `epilog=`. `examples`: command lines, and what each is for; `read`: a document and a heading in it."""
    lines = "\n".join(f"  {line}" + (f"\n      {what}" if what else "") for line, what in examples.items())
    return f"\b\nExamples:\n{lines}\n\n\b\nExit status:\n  {status}\n\n\b\nRead on:\n  {document(read)}"
