"""`glowctl key`: keys for clients on other machines.

Rules: asks the supervisor (clients/admin.py); prints what it answers. An address has a secret in it, and is printed once.
"""

import argparse
import sys
from typing import Any

from glowd.clients import admin, errors
from glowd.daemon.wire.admin import KEY_LIST, KEY_NEW, KEY_REVOKE, QUOTAS, Keys


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """The command `key`."""
    key = commands.add_parser("key", help="let clients on other machines connect, each with a key of its own")
    actions = key.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="make a key, and print the address that its client needs")
    new.add_argument("name", help="letters, digits, '.', '_' and '-'")
    new.add_argument(
        "--role", action="append", required=True, metavar="ROLE",
        help='push, "listen GLOB", "control GLOB", metrics, engine or admin; may be given several times',
    )  # fmt: skip
    for name, what in QUOTAS.items():
        new.add_argument(
            f"--{name.replace('_', '-')}", type=int, metavar="N", help=f"most {what}; default: the settings"
        )
    actions.add_parser("list", help="print the keys, their roles, and quotas of their own")
    revoke = actions.add_parser("revoke", help="disconnect the clients with a key, and let nobody in with it")
    revoke.add_argument("name")


def run(args: argparse.Namespace) -> None:
    """Do what was asked. Raises NotRunning, Refused."""
    directory = admin.run_dir_of(args.endpoint)
    match args.action:
        case "new":
            quotas = {name: value for name in QUOTAS if (value := getattr(args, name)) is not None}
            asked = {"name": args.name, "roles": args.role, "quotas": quotas}
            print(told(admin.ask_for_keys(directory, KEY_NEW, **asked)).address)
            use = "GLOWD_JOIN=ADDRESS glowd engine" if "engine" in args.role else "GLOWD_ENDPOINT=ADDRESS glowctl"
            print(f"Whoever has this address may use it; it is shown once: {use} ...", file=sys.stderr)
        case "list":
            for key in told(admin.ask_for_keys(directory, KEY_LIST)).keys:
                own = (f"{name} {value}" for name, value in key.get("quotas", {}).items())
                print(f"{key['name']:24} {', '.join((*key['roles'], *own))}")
        case "revoke":
            told(admin.ask_for_keys(directory, KEY_REVOKE, name=args.name))
            print(f"the key {args.name} is revoked")


def told(answer: Keys) -> Keys:
    """The answer. Raises Refused if it is none."""
    if not answer.ok:
        raise errors.Refused(answer.text)
    return answer
