"""Inversion of a WaveGlow as matrix products on [B, S, C] (channels last), with the past of every causal layer in a state.

The definition of the network is waveglow.py; this is the same arithmetic with folded weights (folding.py) in steps: in torch
(torch_backend.py), compiled (numba_backend.py) or in Triton (triton_backend.py). Whole utterances, chunks, CPU and CUDA all
run `invert`; a whole utterance is one large chunk that begins with a fresh state.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from glowd.flow.inversion.folding import Folded
from glowd.flow.inversion.state import State
from glowd.flow.inversion.step import Step
from glowd.flow.inversion.torch_backend import TorchStep
from glowd.flow.network.waveglow import WaveGlow
from glowd.flow.options import BACKENDS

MAX_WORKSPACES = 64


@dataclass(frozen=True, slots=True)
class Workspace:
    """A step of B streams by S groups, and the state that it moves on, which all steps of B streams share.

    Owner: the inverter's thread.
    """

    state: State
    step: Step


class Inverter:
    """Inverts a WaveGlow: z and conditioning to audio, chunk by chunk or whole.

    `backend`: "torch", "compiled" (causal voices in float32 on a CPU; see numba_backend.py), "triton" (on CUDA; see
    triton_backend.py), or "auto": compiled where possible, else torch. Auto never chooses triton: no
    measurement shows an advantage yet. Raises ValueError for a backend that this voice cannot have here.
    The attribute `backend` is the one that runs; `why_torch` is the reason, if it is torch.
    """

    def __init__(
        self,
        voice: WaveGlow,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        backend: str = "auto",
    ) -> None:
        self.config, self.device, self.dtype = voice.config, torch.device(device), dtype
        self.lapped, self.extra_groups = voice.config.squeeze == "lapped", voice.squeeze.extra_groups
        self._workspaces: dict[tuple[int, int], Workspace] = {}
        self._states: dict[int, State] = {}
        self._weights = weights = Folded(voice, self.device, dtype)
        self.past_frames, self.look_ahead_frames, self.pad = weights.past_frames, weights.look_ahead_frames, weights.pad
        self.backend, self.why_torch = self._choose(backend)
        self._make_step = self._steps(weights)

    # ---------------------------------------------------------------- running

    def initial_state(self, streams: int) -> State:
        """The state of new streams: every layer's past is its padding."""
        return self._weights.rest(streams)

    def workspace(self, batch: int, groups: int) -> Workspace:
        """The memory of a step of B streams by S groups; those that were used last are kept."""
        found = self._workspaces.pop((batch, groups), None)
        if found is None:
            if len(self._workspaces) >= MAX_WORKSPACES:
                self._workspaces.pop(next(iter(self._workspaces)))
            state = self._states.get(batch) or self._states.setdefault(batch, self.initial_state(batch))
            found = Workspace(state, self._make_step(state, groups))
        self._workspaces[batch, groups] = found
        return found

    def invert(self, windows: Tensor, z: Tensor, workspace: Workspace) -> Tensor:
        """Frames and noise to audio [B, S * G]; the workspace's state moves on by S groups.

        windows: [B, past + n + look_ahead, M] raw frames around the n frames to render; z: [B, S, G], where S is
        n * groups_per_frame, or one more at the end of an utterance if the squeeze is lapped (it repeats the
        conditioning of the last group; S = 1 asks for that one alone).
        With a lapped squeeze the audio lies one group back: its first block overlaps the groups before these.
        """
        return workspace.step(windows, z)

    # ---------------------------------------------------------------- backend

    def describe(self) -> str:
        """How the flows run, and why, for people."""
        how = {"torch": f"in torch ({self.why_torch})", "compiled": "compiled", "triton": "in Triton"}
        return f"flows {how[self.backend]}"

    def _choose(self, backend: str) -> tuple[str, str]:
        """The backend that runs, and why it is torch; "" if it is another. Raises ValueError."""
        if backend not in BACKENDS:
            raise ValueError(f"backend is {backend!r}; allowed: {', '.join(BACKENDS)}")
        if backend == "torch":
            return "torch", "the configuration asks for it"
        why_not = self._why_not_triton() if backend == "triton" else self._why_not_compiled()
        if not why_not:
            return ("triton" if backend == "triton" else "compiled"), ""
        if backend != "auto":
            raise ValueError(f"backend is {backend!r}, which this voice cannot have here: {why_not}; use auto or torch")
        return "torch", why_not

    def _why_not_compiled(self) -> str:
        if self.device.type != "cpu":
            return f"the device is {self.device}"
        if self.dtype != torch.float32 or not self.config.causal:
            return "only causal voices in float32 are compiled"
        try:
            import glowd.flow.inversion.numba_backend  # noqa: F401  (numba loads only where it is used)
        except ImportError as error:
            return f"numba cannot be imported ({error})"
        return ""

    def _why_not_triton(self) -> str:
        if self.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            return f"the device is {self.device}, and Triton's kernels run on CUDA"
        try:
            import glowd.flow.inversion.triton_backend  # noqa: F401  (Triton loads only where it is used)
        except ImportError as error:
            return f"Triton cannot be imported ({error})"
        return ""

    def _steps(self, weights: Folded) -> Callable[[State, int], Step]:
        if self.backend == "torch":
            return lambda state, groups: TorchStep(weights, state, groups)
        if self.backend == "triton":
            from glowd.flow.inversion.triton_backend import TritonStep

            return lambda state, groups: TritonStep(weights, state, groups)
        from glowd.flow.inversion.numba_backend import CompiledVoice

        return CompiledVoice(weights).step
