"""`glowd doctor` and `glowd check`: what this machine and this configuration lack, each with the command that fixes it.

Rules: what start-up does is tried with the code of start-up (trial.py, speaker/device.py, runtime/rundir.py), as the user who
runs the command; nothing is left behind. torch is imported, and the sound device opened, only by the check that needs it.
"ok": nothing to do. "note": worth knowing. "missing": glowd cannot do what the configuration asks for.
"""

import importlib.util
import os
import platform
import pwd
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from glowd.daemon.config import Config, ConfigError, SpeakerSettings, WebSettings
from glowd.daemon.config_voices import GriffinLimSettings, RtisiSettings, WaveGlowSettings
from glowd.daemon.runtime.role_process import RoleSpec
from glowd.daemon.runtime.rundir import addresses, is_busy, prepare_run_dir, run_dir, served
from glowd.daemon.runtime.system import usable_cores
from glowd.daemon.speaker.device import DeviceError, PortAudioMissing, PortAudioOutput
from glowd.daemon.trial import Trial, borrowed, try_engines
from glowd.daemon.web.process import PACKAGES

MIN_LIBZMQ = (4, 3, 5)
"""Earlier versions have known security holes."""
PORTAUDIO = {"apt-get": "libportaudio2", "dnf": "portaudio", "pacman": "portaudio", "brew": "portaudio"}
ESPEAK = dict.fromkeys(("apt-get", "dnf", "pacman"), "espeak-ng") | {"brew": "espeak"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `remedy` is a command or a setting, "" if none is needed."""

    name: str
    state: str
    text: str
    remedy: str = ""


def examine_machine(config: Config, engines: Sequence[RoleSpec]) -> Iterator[Finding]:
    """Check the machine for what this configuration needs; `engines` are started and ended."""
    yield check_python()
    yield check_torch(config)
    yield check_numba(config)
    yield check_libzmq()
    yield check_sound(config.speaker)
    yield check_espeak()
    yield check_cores(config)
    yield check_priority()
    for name, voice in config.voices.items():
        if isinstance(voice, WaveGlowSettings) and voice.backend == "triton":
            yield check_triton(name)
    yield check_run_dir(run_dir(config.server))
    if config.web.enabled:
        yield check_web(config.web)
    yield from check_voices(config, engines)


def examine_config(config: Config) -> Iterator[Finding]:
    """Check what the configuration names: checkpoints, the sound device, the run directory, addresses."""
    for name, voice in config.voices.items():
        if isinstance(voice, WaveGlowSettings):
            yield check_checkpoint(name, voice)
        elif isinstance(voice, RtisiSettings | GriffinLimSettings):
            yield check_mel(name, voice.mel)
    if config.speaker.device and config.speaker.enabled:
        yield check_sound(config.speaker)
    if config.web.enabled:
        yield check_web(config.web)
    yield check_run_dir(directory := run_dir(config.server))
    found = addresses(config.server, directory)
    for setting, address in served(found):
        if is_busy(address):
            yield Finding(
                setting,
                "missing",
                f"{address} is taken",
                f"stop the program that listens there, or choose another {setting}",
            )
        else:
            yield Finding(setting, "ok", f"{address} is free")


def check_web(web: WebSettings) -> Finding:
    """The packages of the web process, and its port."""
    absent = [name for name in PACKAGES if importlib.util.find_spec(name.replace("-", "_")) is None]
    if absent:
        remedy = f"{sys.executable} -m pip install {' '.join(absent)}, or --set web.enabled=false"
        return Finding("web", "missing", f"not installed: {', '.join(absent)}", remedy)
    if web.port and is_busy(f"tcp://{web.host}:{web.port}"):
        remedy = "stop the program that listens there, or choose another web.port"
        return Finding("web", "missing", f"port {web.port} is taken", remedy)
    return Finding("web", "ok", f"the page will be at http://{web.host}:{web.port or '(any free port)'}")


def install(packages: dict[str, str]) -> str:
    """The command that installs a package here; `packages` names it for each manager."""
    for manager, package in packages.items():
        if shutil.which(manager):
            sudo = "" if manager == "brew" or os.getuid() == 0 else "sudo "
            verb = "-S" if manager == "pacman" else "install"
            return f"{sudo}{manager} {verb} {package}"
    return f"install {next(iter(packages.values()))} with this system's package manager"


def check_python() -> Finding:
    """The interpreter, and the user: another one may lack what this one has."""
    return Finding("python", "ok", f"{platform.python_version()} at {sys.executable}, as user {user_name()}")


def user_name() -> str:
    """The user who runs this, by number if the system has no name for it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def check_torch(config: Config) -> Finding:
    """torch, and CUDA if a voice asks for it."""
    try:
        import torch as module
    except (ImportError, OSError) as error:
        return Finding("torch", "missing", f"cannot be imported: {error}", f"{sys.executable} -m pip install torch")
    found = module.cuda.device_count() if module.cuda.is_available() else 0
    devices = ", ".join(f"cuda:{number} ({module.cuda.get_device_name(number)})" for number in range(found))
    absent = [spec for spec in config.engines.values() if spec.cuda is not None and spec.cuda >= found]
    if absent:
        asked = ", ".join(f"{spec.device} (voice {spec.voice})" for spec in absent)
        text = f"{module.__version__} finds {devices or 'no CUDA device'}; the configuration asks for {asked}"
        setting = f"--set \"voices.{absent[0].voice}.devices=['auto']\""
        return Finding("torch", "missing", text, f"{setting}, or install the NVIDIA driver and a CUDA build of torch")
    return Finding("torch", "ok", f"{module.__version__}, {devices or 'no CUDA device: voices run on the CPU'}")


def check_numba(config: Config) -> Finding:
    """numba, which compiles the network for a CPU."""
    wanted = [n for n, v in config.voices.items() if isinstance(v, WaveGlowSettings) and v.backend == "compiled"]
    try:
        import numba
    except ImportError as error:
        remedy = f"{sys.executable} -m pip install numba"
        if wanted:
            text = f'cannot be imported, but voice {wanted[0]} asks for backend = "compiled": {error}'
            return Finding("numba", "missing", text, f"{remedy}, or --set voices.{wanted[0]}.backend=torch")
        return Finding("numba", "note", f"cannot be imported; voices run in torch, about half as fast: {error}", remedy)
    return Finding("numba", "ok", f"{numba.__version__}: causal voices on a CPU are compiled")


def check_triton(name: str) -> Finding:
    """Triton and a CUDA device, which voice `name` asks for."""
    remedy = f"--set voices.{name}.backend=auto"
    asks = f'voice {name} asks for backend = "triton"'
    try:
        import torch
        import triton
    except (ImportError, OSError) as error:
        text = f"cannot be imported, but {asks}: {error}"
        return Finding("triton", "missing", text, f"{sys.executable} -m pip install triton, or {remedy}")
    if not torch.cuda.is_available():
        return Finding("triton", "missing", f"{asks}, and torch finds no CUDA device", remedy)
    return Finding("triton", "ok", f"{triton.__version__}: {asks}")


def check_libzmq() -> Finding:
    """The version of libzmq."""
    import zmq

    text = f"libzmq {zmq.zmq_version()}, pyzmq {zmq.pyzmq_version()}"
    if zmq.zmq_version_info() < MIN_LIBZMQ:
        return Finding(
            "libzmq",
            "missing",
            f"{text}; versions before 4.3.5 have known security holes",
            f"{sys.executable} -m pip install -U pyzmq",
        )
    return Finding("libzmq", "ok", text)


def check_sound(speaker: SpeakerSettings) -> Finding:
    """PortAudio and the configured device, which is opened and closed without sound."""
    if not speaker.enabled:
        return Finding("sound", "ok", "not used: speaker.enabled = false")
    output = PortAudioOutput(speaker)
    try:
        output.open()
    except PortAudioMissing as error:
        return Finding("sound", "missing", error.text, install(PORTAUDIO))
    except DeviceError as error:
        return Finding("sound", "missing", error.text, error.remedy or "use another device: --set speaker.device=NAME")
    text = f"{output.name} at {output.rate_hz} Hz, latency {output.latency_ms:.0f} ms"
    output.close()
    return Finding("sound", "ok", text)


def check_espeak() -> Finding:
    """The text-to-speech program that `glowctl say` uses where hibari is not installed."""
    if path := shutil.which("espeak-ng"):
        return Finding("espeak-ng", "ok", path)
    return Finding(
        "espeak-ng", "note", "not found; only `glowctl say` needs it, if no other --tts is named", install(ESPEAK)
    )


def check_cores(config: Config) -> Finding:
    """Whether the engines' threads leave a core to the other roles."""
    have = usable_cores()
    on_cpu = [config.voices[spec.voice] for spec in config.engines.values() if spec.cuda is None]
    want = sum(voice.threads for voice in on_cpu if isinstance(voice, WaveGlowSettings))
    text = f"{have} cores, load {os.getloadavg()[0]:.1f}; the networks use up to {want}"
    if want >= have:
        remedy = "lower voices.NAME.threads, or list fewer voices.NAME.devices"
        return Finding("cores", "note", f"{text}, which leaves no core to the gateway and the speaker", remedy)
    return Finding("cores", "ok", text)


def check_priority() -> Finding:
    """Whether the speaker may have real-time priority."""
    import resource

    limit = getattr(resource, "RLIMIT_RTPRIO", None)
    if os.getuid() == 0 or (limit is not None and resource.getrlimit(limit)[0] > 0):
        return Finding("priority", "ok", "real-time priority is allowed")
    remedy = f"add '{os.environ.get('USER', 'USER')} - rtprio 20' to /etc/security/limits.d/audio.conf and log in again"
    return Finding("priority", "note", "real-time priority is not allowed; it matters on a busy machine only", remedy)


def check_run_dir(directory: Path) -> Finding:
    """The run directory: it exists and is private, or it can be made."""
    if directory.exists():
        try:
            prepare_run_dir(directory)
        except ConfigError as error:
            return Finding("run_dir", "missing", str(error), f"chmod 700 {directory}, or --set server.run_dir=DIR")
        return Finding("run_dir", "ok", f"{directory}, private")
    parent = next(path for path in directory.parents if path.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        return Finding("run_dir", "missing", f"{directory} cannot be made in {parent}", "--set server.run_dir=DIR")
    return Finding("run_dir", "ok", f"{directory} will be made")


def check_voices(config: Config, engines: Sequence[RoleSpec]) -> Iterator[Finding]:
    """Each engine, started as the daemon starts it, until it is ready."""
    try:
        with borrowed(run_dir(config.server)):
            trials = try_engines(engines, config.supervisor)
    except ConfigError as error:
        yield Finding("voices", "missing", f"not tried: {error}", "mend the run directory first")
        return
    for engine in engines:
        yield _tried(config, engine, trials[engine.name])


def _tried(config: Config, engine: RoleSpec, trial: Trial) -> Finding:
    if not trial.reason:
        limit = f", capacity {trial.info['streams']}" if trial.info.get("streams") else ""
        return Finding(engine.name, "ok", f"ready after {trial.seconds:.1f} s on {trial.info.get('device')}{limit}")
    text = f"cannot start: {trial.reason}"
    others = [name for name in config.voices if name != config.default_voice]
    if engine.is_optional:
        return Finding(engine.name, "missing", text, "mend this, or remove the voice; glowd starts without it")
    choice = f", or make another one the default: {', '.join(others)}" if others else ""
    return Finding(engine.name, "missing", text, f"mend this; glowd does not start without its default voice{choice}")


def check_mel(name: str, mel: str) -> Finding:
    """The mel format of a voice without a network."""
    from glowd.flow.mel_formats.voice import voice_format

    try:
        format = voice_format(mel)
    except ValueError as error:
        return Finding(f"voices.{name}", "missing", str(error), f"set voices.{name}.mel")
    return Finding(f"voices.{name}", "ok", f"{mel}: {format.rate_hz} Hz, {format.n_mels} bands, hop {format.hop}")


def check_checkpoint(name: str, voice: WaveGlowSettings) -> Finding:
    """The header of a voice's checkpoint."""
    from glowd.flow.checkpoint import CheckpointError, read_header

    try:
        config, _ = read_header(voice.checkpoint)
    except CheckpointError as error:
        return Finding(f"voices.{name}", "missing", str(error), f"set voices.{name}.checkpoint")
    return Finding(f"voices.{name}", "ok", f"{voice.checkpoint}: {config.flows} flows, {config.channels} channels")
