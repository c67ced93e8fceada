"""`glowlab`: the command line for voices. Trains, imports, inspects, renders, times and compares them; knows no daemon.

Rules: arguments in, one call, lines out. Each command imports what it needs when it runs, so that help is instant. A user's
mistake ends as one line on stderr and exit status 2.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glowd.flow import missing_package, options
from glowd.flow.evaluation import cli as evaluation
from glowd.flow.recognition.printable import escaped
from glowd.flow.training.pitch_settings import PitchSettings
from glowd.flow.training.settings import Settings, TrainError, read_config

if TYPE_CHECKING:
    from glowd.flow.mel import Floats, MelFormat
    from glowd.flow.network.registry import Network
    from glowd.flow.training.distributed import World
    from glowd.flow.training.run_folder import RunFolder
    from glowd.flow.training.setup import Report
    from glowd.flow.training.trainer import Trainer


def train(args: argparse.Namespace) -> int:
    """`glowlab train`."""
    from glowd.flow.training.distributed import join
    from glowd.flow.training.run_folder import VOICE, RunFolder
    from glowd.flow.training.train import train as run

    with join() as world:
        folder = RunFolder(Path(args.out), writes=world.is_leader)
        report = world.leader_only(print)
        trainer = _trainer(args, folder, report, world)
        if run(trainer, folder):
            report(f"done after {trainer.steps} steps: {folder.path / VOICE}")
        else:
            report(f"stopped after {trainer.steps} steps; go on with: glowlab train --out {folder.path} --resume")
    return 0


def _trainer(args: argparse.Namespace, folder: "RunFolder", report: "Report", world: "World") -> "Trainer":
    from glowd.flow.training.setup import new_run, resumed_run

    given = options.given(args, Settings)
    if args.resume:
        if args.config or args.init or args.pitch:
            raise TrainError("--config, --init and --pitch belong to the start of a run; leave them out with --resume")
        return resumed_run(folder, given, report, world)
    voice, table = read_config(args.config) if args.config else ({}, {})
    return new_run(folder, Settings.from_dict(table | given), voice, args.init, report, world, args.pitch)


def pitch(args: argparse.Namespace) -> int:
    """`glowlab pitch`."""
    from glowd.flow.new_file import PUBLIC, claim_output
    from glowd.flow.training.geometry import geometry
    from glowd.flow.training.pitch_command import train_pitch_file

    settings = PitchSettings.from_dict(options.given(args, PitchSettings))
    voice = read_config(args.config)[0] if args.config else {}
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    with claim_output(args.out, "pitch", args.overwrite, PUBLIC) as new:
        judgement = train_pitch_file(settings, geometry(voice), new, print)
    print(f"{args.out}: {judgement}")
    return 0


def import_(args: argparse.Namespace) -> int:
    """`glowlab import`."""
    from glowd.flow.importing.mel_source import GivenMel
    from glowd.flow.importing.nvidia import convert

    given = GivenMel(rate_hz=args.rate, hop=args.hop, fmax_hz=args.fmax)
    made = convert(args.source, args.out, args.half, given, args.overwrite)
    config = made.config
    size = f"{config.flows} flows of {config.layers} layers, {config.channels} channels, G = {config.group}"
    print(f"{args.out}: {size}, from {made.kind}")
    for line in made.mel_source.lines():
        print(f"{args.out}: {line}")
    return 0


def render(args: argparse.Namespace) -> int:
    """`glowlab render`."""
    from glowd.flow import checkpoint
    from glowd.flow.new_file import claim_output
    from glowd.flow.recordings import check_suffix, write_samples

    check_suffix(Path(args.out))
    with claim_output(args.out, "audio", args.overwrite) as new:
        voice = checkpoint.load_any(args.checkpoint)
        mel = _mel(Path(args.source), voice.config.mel)
        samples = _samples(voice, mel, args)
        write_samples(new, samples, voice.config.mel.rate_hz)
    print(f"{args.out}: {len(samples) / voice.config.mel.rate_hz:.2f} s, {len(mel)} frames, seed {args.seed}")
    return 0


def _samples(network: "Network", mel: "Floats", args: argparse.Namespace) -> "Floats":
    from glowd.flow.network.wavenet import WaveNet

    if isinstance(network, WaveNet):
        from glowd.flow.network.wavenet_sampling import sample

        return sample(network, [mel], args.seed, args.sigma)[0]
    from glowd.flow.devices import pick_device
    from glowd.flow.streaming import whole

    return whole(network, mel, args.seed, args.sigma, pick_device(args.device))


def context(args: argparse.Namespace) -> int:
    """`glowlab context`."""
    from glowd.flow import checkpoint
    from glowd.flow.evaluation.context_curve import context_curve

    voice = checkpoint.load(args.checkpoint)
    mel = _mel(Path(args.source), voice.config.mel)
    frames = round(args.seconds * voice.config.mel.rate_hz / voice.config.mel.hop)
    print("look-ahead  context  latency  recompute      SNR  max error")
    for row in context_curve(voice, mel[:frames], chunk_frames=args.chunk_frames):
        print(
            f"{row.look_ahead_frames:7d} fr {row.context_frames:5d} fr {row.latency_ms:5.0f} ms {row.recompute:9.1f}x"
            f" {row.snr_db:5.1f} dB  {row.max_error:9.2e}",
            flush=True,
        )
    return 0


def bench(args: argparse.Namespace) -> int:
    """`glowlab bench`."""
    import torch

    from glowd.flow import checkpoint
    from glowd.flow.devices import pick_device
    from glowd.flow.streaming import ChunkPlan, VocoderOptions, stream_vocoder
    from glowd.flow.timing import WARM_UP, speed

    device = pick_device(args.device)
    torch.set_num_threads(args.threads)
    voice = checkpoint.load(args.checkpoint)
    name = torch.cuda.get_device_name() if str(device).startswith("cuda") else "CPU"
    print(
        f"{args.checkpoint} on {name}, torch {torch.__version__}, {args.threads} threads, {args.runs} runs after {WARM_UP}"
    )
    print("chunk  streams     RTF      p50      p90      p99      max")
    for streams in args.streams:
        for frames in args.chunk_frames:
            options = VocoderOptions(str(device), max_batch=streams, slots=streams)
            vocoder = stream_vocoder(voice, ChunkPlan(frames), options)
            row = speed(vocoder, frames, streams, args.runs)
            print(
                f"{frames:2d} fr {streams:8d} {row.rtf:7.3f} {row.p50_ms:5.1f} ms {row.p90_ms:5.1f} ms {row.p99_ms:5.1f} ms"
                f" {row.max_ms:5.1f} ms",
                flush=True,
            )
    return 0


def card(args: argparse.Namespace) -> int:
    """`glowlab card`."""
    from glowd.flow import checkpoint

    config, text = checkpoint.read_any_header(args.checkpoint)
    if args.json:
        print(json.dumps({"config": config.to_dict(), "card": text}, indent=2))
        return 0
    _print_table(config.to_dict())
    print(f"{'bytes':20} {checkpoint.resolve(args.checkpoint).stat().st_size}\n\ncard")
    _print_table(text)
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """`glowlab evaluate`."""
    return evaluation.evaluate(args, _report)


def compare(args: argparse.Namespace) -> int:
    """`glowlab compare`."""
    return evaluation.compare(args, _report)


def exactness(args: argparse.Namespace) -> int:
    """`glowlab exactness`."""
    return evaluation.exactness(args, _report)


def _report(line: str) -> None:
    print(line, flush=True)


def _print_table(table: dict[str, Any], indent: str = "") -> None:
    for key, value in table.items():
        key = escaped(str(key))  # of somebody's file
        if isinstance(value, dict):
            print(f"{indent}{key}")
            _print_table(value, indent + "  ")
        elif key == "curve" and isinstance(value, list):
            print(f"{indent}{key:20} {len(value)} points (--json shows them)")
        else:
            print(f"{indent}{key:20} {escaped(str(value))}")


def _mel(source: Path, format: "MelFormat") -> "Floats":
    """Frames [L, M] from an .npy of frames or from a recording. Raises RecordingError or ValueError."""
    from glowd.flow.mel import log_mel
    from glowd.flow.recordings import read_speech

    if source.suffix.lower() == ".npy":
        return _saved_mel(source, format)
    wave = read_speech(source, format.rate_hz)
    return log_mel(wave, format)[: len(wave) // format.hop]


def _saved_mel(source: Path, format: "MelFormat") -> "Floats":
    import numpy as np

    from glowd.flow.recognition.kinds import recognise
    from glowd.flow.torchfile.numpy_files import read_npy

    if source.is_file() and (kind := recognise(source)).name != "npy":
        raise ValueError(f"{source} is {kind.instead_of('a .npy of mel frames')}")
    try:
        mel = read_npy(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"{source} is not a readable .npy file: {error}") from error
    if mel.ndim != 2 or mel.shape[1] != format.n_mels or not len(mel):
        raise ValueError(f"{source} has shape {list(mel.shape)}; expected frames [L, {format.n_mels}] of log-mel")
    if mel.dtype.kind != "f" or not np.isfinite(mel).all():
        raise ValueError(f"{source} holds values that are not finite floats (dtype {mel.dtype})")
    frames: Floats = mel.astype(np.float32)
    return frames


def positive(text: str) -> int:
    """A whole number of at least 1. Raises ArgumentTypeError."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: whole numbers of at least 1")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="glowlab", description="Train, import, inspect, render, time and compare voices of glowd."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_pitch(commands)
    _add_import(commands)
    _add_context(commands)
    _add_render(commands)
    _add_bench(commands)
    evaluation.add_arguments(commands, evaluate, compare, exactness)
    _add_card(commands)
    return top


def _add_out(sub: argparse.ArgumentParser, *name: str, **declared: Any) -> None:
    """The file that a command makes."""
    sub.add_argument(*name, **declared)
    sub.add_argument("--overwrite", action="store_true", help="replace the file, even if it is of another kind")


def _add_train(commands: Any) -> None:
    sub = commands.add_parser(
        "train",
        help="train a voice by likelihood, alone or with a spectral distance",
        epilog="Several GPUs: torchrun --nproc-per-node N -m glowd.flow.cli train ...",
    )
    sub.add_argument("--out", required=True, metavar="FOLDER", help="folder of the run: state, curve, voice, samples")
    options.add_arguments(sub, Settings)
    sub.add_argument(
        "--config",
        default="",
        help='run file (.toml with [voice] and [train]), or JSON: {"channels": 128}; {"preset": "wavenet"} trains a WaveNet',
    )
    sub.add_argument(
        "--init", default="", metavar="CHECKPOINT", help="checkpoint to start from, instead of random weights"
    )
    sub.add_argument(
        "--pitch", default="", metavar="FILE", help="pitch network of a new voice, by glowlab pitch (that of --init)"
    )
    sub.add_argument("--resume", action="store_true", help="resume the run in --out; other options change its settings")
    sub.set_defaults(run=train)


def _add_pitch(commands: Any) -> None:
    sub = commands.add_parser("pitch", help="train the network that reads the pitch of a new voice from its mels")
    _add_out(sub, "--out", required=True, metavar="FILE", help=".safetensors for glowlab train --pitch")
    options.add_arguments(sub, PitchSettings)
    sub.add_argument(
        "--config", default="", help="the voice's run file or JSON, as for train: its [voice] table counts"
    )
    sub.set_defaults(run=pitch)


def _add_import(commands: Any) -> None:
    sub = commands.add_parser(
        "import",
        help="convert a published WaveGlow checkpoint",
        epilog="What is not given is read from the file, or from NVIDIA's config.json beside it; else it is assumed, and said.",
    )
    sub.add_argument("source", metavar="FILE.pt")
    _add_out(sub, "out", metavar="OUT.safetensors")
    sub.add_argument("--rate", type=positive, metavar="HZ", help="sample rate that it was trained at (22050)")
    sub.add_argument("--hop", type=positive, metavar="SAMPLES", help="samples for each mel frame (256)")
    sub.add_argument("--fmax", type=float, metavar="HZ", help="upper end of its mel bands (8000)")
    sub.add_argument("--half", action="store_true", help="store the weights in float16")
    sub.set_defaults(run=import_)


def _add_context(commands: Any) -> None:
    sub = commands.add_parser("context", help="measure how truncated context changes a voice that is not causal")
    sub.add_argument("checkpoint", metavar="CHECKPOINT")
    sub.add_argument("source", metavar="SPEECH", help="recording, or .npy of mel frames, to measure on")
    sub.add_argument("--seconds", type=float, default=4.0, help="seconds of the recording to use (4)")
    sub.add_argument("--chunk-frames", type=int, default=8, help="frames in a chunk (8)")
    sub.set_defaults(run=context)


def _add_render(commands: Any) -> None:
    sub = commands.add_parser("render", help="render speech from the mel of a recording, or from an .npy of mel frames")
    sub.add_argument("source", metavar="IN", help=".wav/.flac, or .npy with frames [L, M]")
    _add_out(sub, "out", metavar="OUT", help=".wav or .flac")
    sub.add_argument("--checkpoint", default="embedded", help="a .safetensors file (embedded: the voice of glowd)")
    sub.add_argument("--seed", type=int, default=0, help="seed of the latents (0)")
    sub.add_argument(
        "--sigma", type=float, help="standard deviation of the latents; of a WaveNet its temperature (the voice's own)"
    )
    sub.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto (auto); a WaveNet runs on the CPU")
    sub.set_defaults(run=render)


def _add_bench(commands: Any) -> None:
    sub = commands.add_parser("bench", help="time a voice on this machine, by chunk size and number of streams")
    sub.add_argument("checkpoint", metavar="CHECKPOINT", nargs="?", default="embedded")
    sub.add_argument(
        "--chunk-frames", type=positive, nargs="+", default=[1, 2, 4, 8, 16], help="frames in a chunk (1 2 4 8 16)"
    )
    sub.add_argument("--streams", type=positive, nargs="+", default=[1], help="streams in one call (1)")
    sub.add_argument("--runs", type=positive, default=1000, help="calls measured for each line (1000)")
    sub.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto (auto)")
    sub.add_argument("--threads", type=positive, default=1, help="CPU threads (1)")
    sub.set_defaults(run=bench)


def _add_card(commands: Any) -> None:
    sub = commands.add_parser("card", help="show geometry and card of a checkpoint")
    sub.add_argument("checkpoint", metavar="CHECKPOINT", nargs="?", default="embedded")
    sub.add_argument("--json", action="store_true", help="as JSON, with the curve of the training")
    sub.set_defaults(run=card)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command: 0; 2 after one line that names the mistake, 1 after one that names a missing package; 130 on Ctrl-C."""
    args = parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe: `glowlab card | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"glowlab: {escaped(str(error))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(missing_package.advice("glowlab", error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    status = main()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # Started by torchrun: threads of its process group can abort an interpreter that ends in the usual way.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
