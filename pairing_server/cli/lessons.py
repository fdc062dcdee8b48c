"""What `--help` teaches beyond what a command does: examples, how it ends, and where to read on. One place, so that none lacks it."""

from __future__ import annotations

from typing import NamedTuple

import click

# Beside what click does by itself: 2 for a wrong use, 130 after Ctrl-C.
DONE = "0 done; 1 not done, and standard error says why; 2 wrong use"

_ACCOUNTS = "docs/operations.md, Accounts"
_AUDIT = "docs/audit.md, A reviewer's guide"
_SEALS = "docs/audit.md, Verifying"


class Lesson(NamedTuple):
    # Command lines, and what each is for.
    examples: dict[str, str]
    # A document, and the heading in it.
    read: str
    status: str = DONE


# By the words after `pairing-server`.
LESSONS: dict[str, Lesson] = {
    "": Lesson(
        {
            "pairing-server serve": "start, with an embedded PostgreSQL",
            "pairing-server doctor": "do a whole pairing against it, as two devices would",
            "pairing-server user add alice": "make an account where registration is closed",
        },
        "docs/operations.md, Operating the server",
    ),
    "serve": Lesson(
        {
            "pairing-server serve": "on 127.0.0.1:8089, data in ./data",
            "pairing-server serve --host 0.0.0.0 --port 8090 --data-dir /srv/pairing": "elsewhere",
            "PAIRING_DATABASE_URL=postgresql://pairing@db/pairing pairing-server serve": "with a database of your own",
        },
        "docs/operations.md, Starting",
        "0 after SIGTERM or Ctrl-C; 1 it cannot start, and standard error says why; 2 wrong use",
    ),
    "migrate": Lesson(
        {
            "pairing-server migrate": "before a new release starts; servers may run meanwhile",
            "pairing-server migrate --before-start": "in a unit, as ExecStartPre=",
        },
        "docs/operations.md, Upgrading",
    ),
    "config": Lesson(
        {
            "pairing-server config": "all settings; `#` lines on standard error are remarks",
            "PAIRING_CODE_TTL=60 pairing-server config": "what a change would give",
        },
        "docs/operations.md, Settings",
        "0 they are right; 1 they are not, and standard error names each fault; 2 wrong use",
    ),
    "user": Lesson(
        {
            "pairing-server user add alice": "asks for her password",
            "pairing-server user list": "name, role, enabled or not, since, id",
        },
        _ACCOUNTS,
    ),
    "user add": Lesson(
        {
            "pairing-server user add alice": "asks for her password",
            "pairing-server user add rita --role auditor < password.txt": "for scripts: one line is read",
        },
        _ACCOUNTS,
    ),
    "user list": Lesson(
        {
            "pairing-server user list": "columns are parted by tabs",
            "pairing-server user list | cut -f 1": "the names only",
        },
        _ACCOUNTS,
    ),
    "user disable": Lesson(
        {"pairing-server user disable alice": "her connections are closed within two seconds"}, _ACCOUNTS
    ),
    "user enable": Lesson(
        {"pairing-server user enable alice": "she logs in again with her password"}, _ACCOUNTS
    ),
    "user set-password": Lesson(
        {
            "pairing-server user set-password alice": "ends all logins made with the old one",
            "pairing-server user set-password alice < password.txt": "for scripts: one line is read",
        },
        "docs/operations.md, If a token or a key has leaked",
    ),
    "user set-role": Lesson(
        {"pairing-server user set-role alice auditor": "she may read the audit log from now on"}, _ACCOUNTS
    ),
    "token": Lesson({"pairing-server token issue alice --ttl 3600": "good for an hour"}, _ACCOUNTS),
    "token issue": Lesson(
        {
            "pairing-server token issue alice": "good for a day",
            'curl -H "Authorization: Bearer $(pairing-server token issue alice --ttl 60)" http://127.0.0.1:8089/api/pairings': "at once",
        },
        _ACCOUNTS,
    ),
    "session": Lesson(
        {
            "pairing-server session list --user alice": "her logins",
            "pairing-server session revoke --user alice": "end all of them",
        },
        "docs/operations.md, If a token or a key has leaked",
    ),
    "session list": Lesson(
        {
            "pairing-server session list": "everybody's",
            "pairing-server session list --user 'https://id.example|4711'": "a user of another issuer",
        },
        _ACCOUNTS,
    ),
    "session revoke": Lesson(
        {
            "pairing-server session revoke 0b6f3a52-6f0e-4c6e-9a53-0d3c5c1d7f10": "one login, by its id",
            "pairing-server session revoke --user alice": "all of hers",
            "pairing-server session revoke --token T-17 --issuer https://id.example": "one token, by its jti",
        },
        "docs/operations.md, If a token or a key has leaked",
    ),
    "lockouts": Lesson(
        {
            "pairing-server lockouts list": "kind, whom, until when, how often in a row",
            "pairing-server lockouts lift login_user alice": "she may try again at once",
        },
        "docs/operations.md, Lock-outs",
    ),
    "lockouts list": Lesson(
        {"pairing-server lockouts list": "columns are parted by tabs"}, "docs/operations.md, Lock-outs"
    ),
    "lockouts lift": Lesson(
        {
            "pairing-server lockouts lift redeem_address 203.0.113.9": "an address that guessed codes",
            "pairing-server lockouts lift redeem_alarm all": "an alarm that was false",
        },
        "docs/operations.md, Lock-outs",
    ),
    "keys": Lesson(
        {
            "pairing-server keys list": "which signs, and until when each is needed",
            "pairing-server keys rotate": "a fresh one first",
        },
        "docs/operations.md, Keys",
    ),
    "keys list": Lesson({"pairing-server keys list": "without their secrets"}, "docs/operations.md, Keys"),
    "keys rotate": Lesson(
        {
            "pairing-server keys rotate": "running servers notice within a second",
            "pairing-server keys rotate > jwt-keys.new": "where PAIRING_JWT_KEYS is set: what to put there",
        },
        "docs/operations.md, Keys",
    ),
    "keys retire": Lesson(
        {
            "pairing-server keys retire k-2025-11-01": "once no token needs it",
            "pairing-server keys retire k-2025-11-01 --now": "it has leaked: everybody logs in again",
        },
        "docs/operations.md, Keys",
    ),
    "audit": Lesson(
        {
            "pairing-server audit summary --since 24h": "who failed, who was locked out",
            "pairing-server audit list --since 7d --event 'auth.*' --outcome failure": "failed logins",
            "pairing-server audit list --address 203.0.113.0/24 --severity warning": "from a network",
        },
        _AUDIT,
    ),
    "audit list": Lesson(
        {
            "pairing-server audit list --since 1h --event pairing.redeem --outcome failure": "guesses",
            "pairing-server audit list --user alice --json": "for programs",
        },
        _AUDIT,
    ),
    "audit show": Lesson({"pairing-server audit show 1204": "the event of that number"}, _AUDIT),
    "audit summary": Lesson({"pairing-server audit summary --since 7d": "the last week"}, _AUDIT),
    "audit follow": Lesson(
        {
            "pairing-server audit follow --severity notice": "what matters, as it comes",
            "pairing-server audit follow --json >> audit.jsonl": "into a file",
        },
        _AUDIT,
        "0 after Ctrl-C, which ends it; 1 it cannot ask, and standard error says why; 2 wrong use",
    ),
    "audit export": Lesson(
        {
            "pairing-server audit export --since 30d --output november.jsonl": "with seals, to be verified",
            "pairing-server audit export --since 24h --format ocsf --output day.ocsf": "for a SIEM",
        },
        _AUDIT,
    ),
    "audit key": Lesson(
        {"pairing-server audit key > seals.pub": "take it to the machine that verifies"}, _SEALS
    ),
    "audit verify": Lesson(
        {
            "pairing-server audit verify": "the database, from its first seal on",
            "pairing-server audit verify --copies seals.jsonl": "also against the copies kept elsewhere",
            'pairing-server audit verify --from-export november.jsonl --key "$(cat seals.pub)"': "anywhere",
        },
        _SEALS,
        "0 every seal fits; 1 one does not, which is named, or it cannot be verified; 2 wrong use",
    ),
    "audit rebase": Lesson(
        {
            "pairing-server audit rebase": "after a dump was loaded by other means than `restore`",
            "PAIRING_MIGRATE_DATABASE_URL=postgresql://owner@db/pairing pairing-server audit rebase": "with two roles",
        },
        "docs/audit.md, After a restore",
    ),
    "doctor": Lesson(
        {
            "pairing-server doctor": "the server of these settings; makes a throw-away account",
            "pairing-server doctor --url https://pair.example --username alice": "another; asks for the password",
        },
        "docs/operations.md, Knowing that it is right",
        "0 all is right, findings or not; 1 a step has failed, and what to do is said; 2 wrong use",
    ),
    "status": Lesson(
        {
            "pairing-server status": "one screen",
            "pairing-server status --json": "for programs",
        },
        "docs/operations.md, Watching it",
        "0 it runs; 1 none runs on this data directory; 2 wrong use",
    ),
    "backup": Lesson(
        {
            "pairing-server backup /backup/pairing-$(date +%F).tar": "every night",
            "pairing-server backup --with-seal-key - > pairing.tar": "from a service, with the key that seals",
        },
        "docs/operations.md, Backing up",
    ),
    "restore": Lesson(
        {
            "pairing-server restore pairing.tar": "into an empty database",
            "pairing-server restore --replace - < pairing.tar": "the data there are lost",
        },
        "docs/operations.md, Backing up",
    ),
    "completion": Lesson(
        {
            "pairing-server completion bash > ~/.local/share/bash-completion/completions/pairing-server": "",
            'pairing-server completion zsh > "${fpath[1]}/_pairing-server"': "",
            "pairing-server completion fish > ~/.config/fish/completions/pairing-server.fish": "",
        },
        "docs/operations.md, Installing",
    ),
}


def teach(command: click.Command, path: str = "") -> None:
    """Put each lesson below its command's options. Raises KeyError for a command without one."""
    lesson = LESSONS[path]
    examples = "\n".join(_line(example, what) for example, what in lesson.examples.items())
    command.epilog = (
        f"\b\nExamples:\n{examples}\n\n\b\nExit status:\n  {lesson.status}\n\n\b\nRead on:\n  {lesson.read}"
    )
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            teach(inner, f"{path} {name}".strip())


def _line(example: str, what: str) -> str:
    if not what:
        return f"  {example}"
    return f"  {example}\n      {what}"
