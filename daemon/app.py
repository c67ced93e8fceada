"""`glowd`: run the daemon, check a configuration, check the machine, print a unit file.

Rules: this file decides which roles run, and with which arguments; runtime/supervisor.py runs them. It imports neither
torch nor a sound library, so that the supervisor stays small. Exit status: 0 success, 1 a failure or something that is
missing, 2 wrong arguments or settings.
"""

import argparse
import asyncio
import contextlib
import importlib.metadata
import itertools
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from glowd.daemon.config import Config, ConfigError
from glowd.daemon.config_reader import as_text, load
from glowd.daemon.config_voices import VoiceSettings
from glowd.daemon.reload import Reloader
from glowd.daemon.runtime.admin_server import AdminServer
from glowd.daemon.runtime.claim import Claim, ClaimLostError, claim
from glowd.daemon.runtime.hangup import Hangup
from glowd.daemon.runtime.key_requests import key_requests
from glowd.daemon.runtime.logs import setup_logging
from glowd.daemon.runtime.role import config_arguments
from glowd.daemon.runtime.role_process import RoleSpec
from glowd.daemon.runtime.rundir import addresses, prepare_run_dir, run_dir
from glowd.daemon.runtime.service_manager import ServiceManager
from glowd.daemon.runtime.status import READY
from glowd.daemon.runtime.supervisor import StartError, Supervisor
from glowd.daemon.wire import ReadyLine
from glowd.daemon.wire.admin import RELOAD
from glowd.flow.missing_package import advice
from glowd.flow.recognition.printable import escaped

if TYPE_CHECKING:
    from glowd.daemon.doctor import Finding

RENEW_EVERY_S = 1.0

log = logging.getLogger("glowd")


def main(argv: Sequence[str] | None = None) -> int:
    """The `glowd` command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="glowd",
        parents=[config_arguments()],
        description="Turns mel-spectrogram frames into speech while they are still arriving.",
        epilog="Without --config every setting has its default; config.toml documents every setting.",
    )
    parser.add_argument(
        "command", nargs="?", default="run", choices=["run", "check", "doctor", "service", "engine"],
        help="run the daemon (default); check the configuration; check this machine; print a unit file for systemd; run an "
        "engine for the daemon of another machine",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="with check or doctor: print JSON")
    parser.add_argument(
        "--service", action="store_true", help="with doctor: check what a service of systemd needs, too"
    )
    parser.add_argument("--install", action="store_true", help="with service: write the unit file to its place")
    parser.add_argument(
        "--user",
        default="",
        metavar="NAME",
        help="with service: a unit of the system, run as this user; with doctor: check as it",
    )
    add_engine_arguments(parser)
    parser.add_argument("--version", action="version", version=f"glowd {importlib.metadata.version('glowd')}")
    arguments = parser.parse_args(argv)
    try:
        config = load(arguments.config, arguments.set)
        if arguments.command == "run":
            return run(config, role_arguments(arguments))
        if arguments.command == "engine":
            return run_engine(config, arguments)
        if arguments.command == "service":
            return show_unit(config, arguments)
        return report_as(config, arguments) if arguments.user else report(config, arguments)
    except BrokenPipeError:
        if arguments.command == "run":
            raise
        # The reader has closed the pipe, as in `glowd check | head`: what it did not read is not known to be good.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ConfigError as error:
        print(f"glowd: {escaped(str(error))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(advice("glowd", error), file=sys.stderr)
        return 1


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `glowd engine`."""
    joins = parser.add_argument_group("engine")
    joins.add_argument("--voice", default="", metavar="NAME", help="the voice that the engine renders")
    joins.add_argument(
        "--join",
        default="",
        metavar="@FILE",
        help="the address that `glowctl key new NAME --role engine` printed: a private file that has it, or the address "
        "itself, which other users of this machine can then read; default: $GLOWD_JOIN",
    )
    joins.add_argument(
        "--listen",
        default="",
        metavar="tcp://HOST:PORT",
        help="wait there for the daemon to dial (its server.dial_engines), instead of dialling it",
    )
    joins.add_argument("--name", default="", help="what the engine is called there; default: the name of this machine")
    joins.add_argument(
        "--checkpoint", default="", metavar="FILE", help="of the voice, instead of what the settings say"
    )
    joins.add_argument("--device", default="", help="cpu or cuda:N, instead of the first one of the settings")
    joins.add_argument(
        "--leave-s", type=float, default=300.0, metavar="S", help="how long it waits for its streams when it is to end"
    )


def run_engine(config: Config, arguments: argparse.Namespace) -> int:
    """`glowd engine`: an engine that joins another daemon; returns the exit status. Raises ConfigError."""
    if not arguments.voice:
        raise ConfigError("glowd engine needs --voice NAME, and the address to join in GLOWD_JOIN or --join @FILE")
    from glowd.daemon.engine import command

    return command.run(config, arguments)


def role_arguments(arguments: argparse.Namespace) -> list[str]:
    """The arguments of `glowd` that are passed on to each role."""
    config = ["--config", str(arguments.config.absolute())] if arguments.config else []
    return config + [word for override in arguments.set for word in ("--set", override)]


def show_unit(config: Config, arguments: argparse.Namespace) -> int:
    """`glowd service`: print the unit file for systemd, or write it and say what comes next. Raises ConfigError."""
    from glowd.daemon.service import unit

    text = unit.unit(config, role_arguments(arguments), arguments.user)
    if arguments.install:
        print(f"wrote {unit.install(text, arguments.user)}\n{unit.next_steps(arguments.user)}")
    else:
        print(text, end="")
    return 0


def report_as(config: Config, arguments: argparse.Namespace) -> int:
    """`glowd doctor --user NAME`: the same command as the user of the service. Raises ConfigError."""
    from glowd.daemon.service import as_user, unit

    flags = [f"--{flag}" for flag in ("service", "json") if getattr(arguments, flag)]
    command = (sys.executable, "-P", "-m", "glowd.daemon.app", arguments.command, *flags, *role_arguments(arguments))
    return as_user.run_as(unit.find_user(arguments.user), command, config.speaker.enabled)


def report(config: Config, arguments: argparse.Namespace) -> int:
    """`glowd doctor` and `glowd check`: print the findings; returns the exit status."""
    from glowd.daemon import doctor  # here, because the running daemon does not need its imports

    if arguments.command == "doctor":
        engines = stages(config, run_dir(config.server), role_arguments(arguments))[1]
        found = doctor.examine_machine(config, engines)
        if arguments.service:
            from glowd.daemon.service.checks import examine_service

            found = itertools.chain(found, examine_service(config))
    else:
        found = doctor.examine_config(config)
    findings = []
    for finding in found:
        findings.append(finding)
        if not arguments.json:
            print(as_lines(finding), flush=True)
    status = int(any(finding.state == "missing" for finding in findings))
    if arguments.json:
        print(json.dumps({"ok": not status, "findings": [asdict(finding) for finding in findings]}, indent=2))
    elif not status:
        print("this machine can run glowd" if arguments.command == "doctor" else f"OK: {summary(config)}")
    return status


def as_lines(finding: "Finding") -> str:
    """A finding for the terminal, and below it what to do."""
    line = escaped(f"{finding.state.ljust(8)} {finding.name}: {finding.text}")
    return f"{line}\n         -> {escaped(finding.remedy)}" if finding.remedy else line


def summary(config: Config) -> str:
    """One line that says what a daemon with this configuration runs."""
    voices = ", ".join(f"{name} ({_engines(voice)})" for name, voice in config.voices.items())
    sound = (config.speaker.device or "the default sound device") if config.speaker.enabled else "no sound device"
    return f"voices {voices}; default {config.default_voice}; {config.server.max_streams} streams; {sound}"


def _engines(voice: VoiceSettings) -> str:
    return voice.engine if len(voice.devices) == 1 else f"{voice.engine}, {len(voice.devices)} engines"


# ---------------------------------------------------------------- glowd run


def stages(config: Config, directory: Path, arguments: Sequence[str]) -> list[list[RoleSpec]]:
    """The roles in the order of their start: the gateway, the engines of each voice, the speaker, the fronts, the cluster role.

    Only the default voice is needed: it is the voice of streams that name none.
    """

    def command(role: str, *more: str) -> tuple[str, ...]:
        # -P: a file in the working directory must not replace a module.
        return (sys.executable, "-P", "-m", f"glowd.daemon.{role}", "--run-dir", str(directory), *more, *arguments)

    engines = [
        RoleSpec(f"engine:{name}", command("engine", "--engine", name), is_optional=spec.voice != config.default_voice)
        for name, spec in config.engines.items()
    ]
    speaker = [[RoleSpec("speaker", command("speaker"))]] if config.speaker.enabled else []
    web = [[RoleSpec("web", command("web"), is_optional=True)]] if config.web.enabled else []
    wyoming = [[RoleSpec("wyoming", command("wyoming"), is_optional=True)]] if config.wyoming.enabled else []
    cluster = [[RoleSpec("cluster", command("cluster"), is_optional=True)]] if config.cluster.ray else []
    found = [[RoleSpec("gateway", command("gateway"), wants_news=True)], engines, *speaker, *web, *wyoming, *cluster]
    settings = as_text(config)
    return [[replace(spec, settings=settings) for spec in stage] for stage in found]


def run(config: Config, arguments: Sequence[str]) -> int:
    """Run the daemon until it is told to stop; returns the exit status. Raises ConfigError."""
    setup_logging("glowd", config.log.level)
    directory = run_dir(config.server)
    prepare_run_dir(directory)
    with claim(directory, addresses(config.server, directory)) as held:
        try:
            asyncio.run(supervise(config, directory, arguments, held))
        except (StartError, ClaimLostError) as error:
            print(f"glowd: {error}", file=sys.stderr)
            return 1
    return 0


async def supervise(config: Config, directory: Path, arguments: Sequence[str], held: Claim) -> None:
    """Run all roles; SIGINT and SIGTERM stop them, a second one kills them. Raises StartError, ClaimLostError."""
    started_s = time.monotonic()
    manager = ServiceManager.from_environment()
    supervisor = Supervisor(stages(config, directory, arguments), config.supervisor, manager)
    reloader = Reloader(
        config,
        lambda: read_again(arguments),
        lambda new: stages(new, directory, arguments),
        supervisor,
        manager,
        summary,
    )
    requests = {RELOAD: lambda _: reloader.reload()} | key_requests(config.server)
    admin = AdminServer(directory, requests)
    catch_signals(supervisor, reloader)
    renewing = asyncio.create_task(keep(held, admin, supervisor, manager))

    def on_ready() -> None:
        manager.ready(summary(config))
        announce(config, directory, supervisor, time.monotonic() - started_s)
        reloader.can_start.set()

    await supervisor.run(on_ready)
    admin.close()
    renewing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await renewing


def read_again(arguments: Sequence[str]) -> Config:
    """The configuration that the arguments name, as it is now. Raises ConfigError."""
    found = config_arguments().parse_args(arguments)
    return load(found.config, found.set)


def catch_signals(supervisor: Supervisor, reloader: Reloader) -> None:
    """SIGINT and SIGTERM stop the roles, SIGHUP reloads the settings."""
    loop, running = asyncio.get_running_loop(), set[asyncio.Task[object]]()

    def reload() -> None:
        running.add(task := loop.create_task(reloader.reload()))
        task.add_done_callback(running.discard)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, supervisor.request_stop)
    loop.add_signal_handler(signal.SIGHUP, Hangup(reload, supervisor.request_stop))


async def keep(held: Claim, admin: AdminServer, supervisor: Supervisor, manager: ServiceManager) -> None:
    """Renew the claim every second. If that cannot be, stop the daemon, which nobody could reach. Raises ClaimLostError."""
    while True:
        manager.tick()
        await admin.renew()
        await asyncio.sleep(RENEW_EVERY_S)
        try:
            if held.renew():
                log.warning("the run directory %s was emptied: its lock is made anew", held.directory)
        except ClaimLostError:
            supervisor.request_stop()
            raise


def announce(config: Config, directory: Path, supervisor: Supervisor, seconds: float) -> None:
    """Print the `glowd ready key=value ...` line, after `seconds` of starting. Voices that are away are not named."""
    found = addresses(config.server, directory)
    ready = {spec.voice for name, spec in config.engines.items() if supervisor.state(f"engine:{name}").state == READY}
    line = ReadyLine(
        endpoint=found.clients,
        telemetry=found.telemetry,
        voices=tuple(voice for voice in config.voices if voice in ready),
        device=str(supervisor.info("speaker").get("device") or "none"),
        seconds=seconds,
        web=str(supervisor.info("web").get("url", "")),
        wyoming=str(supervisor.info("wyoming").get("uri", "")),
    )
    print(
        f"{line}\n", end="", flush=True
    )  # in one piece, also where output is not buffered: the log may go to the same place


if __name__ == "__main__":
    sys.exit(main())
