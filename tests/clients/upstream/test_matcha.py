"""A Matcha-TTS export as an upstream: a small ONNX model with the same inputs and outputs, made here."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from glowd.clients.upstream import Manner, UpstreamError, open_upstream, phonemes
from glowd.clients.upstream.phonemes import NUMBERS, symbol_ids
from tests.clients.upstream.speaking import WANTED, frames_of


def save_model(path: Path, *, speakers: bool = False, outputs: tuple[str, str] = ("mel", "mel_lengths")) -> Path:
    """mel[0, :, frame] is -number of the symbol / 100 - speaker; scales[1] symbols are left out at the end."""
    values: list[tuple[str, int, list[Any]]] = [("x", TensorProto.INT64, ["batch", "time"])]
    values += [("x_lengths", TensorProto.INT64, ["batch"]), ("scales", TensorProto.FLOAT, [2])]
    values += [("spks", TensorProto.INT64, ["batch"])] if speakers else []
    nodes = [
        helper.make_node("Cast", ["x"], ["symbols"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["symbols", "hundredth"], ["small"]),
        helper.make_node("Cast", ["spks" if speakers else "nobody"], ["speaker"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["small", "speaker"], ["levels"]),
        helper.make_node("Unsqueeze", ["levels", "axis"], ["row"]),
        helper.make_node("Expand", ["row", "bands"], [outputs[0]]),
        helper.make_node("Gather", ["scales", "axis"], ["length_scale"]),
        helper.make_node("Cast", ["length_scale"], ["dropped"], to=TensorProto.INT64),
        helper.make_node("Sub", ["x_lengths", "dropped"], [outputs[1]]),
    ]
    constants = [
        helper.make_tensor("hundredth", TensorProto.FLOAT, [], [-0.01]),
        helper.make_tensor("nobody", TensorProto.INT64, [1], [0]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("bands", TensorProto.INT64, [3], [1, 80, 1]),
    ]
    graph = helper.make_graph(
        nodes, "matcha", [helper.make_tensor_value_info(*value) for value in values],
        [
            helper.make_tensor_value_info(outputs[0], TensorProto.FLOAT, ["batch", 80, "frames"]),
            helper.make_tensor_value_info(outputs[1], TensorProto.INT64, ["batch"]),
        ],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def test_matcha_mel_is_that_of_its_symbols(tmp_path: Path) -> None:
    upstream = open_upstream(f"matcha:{save_model(tmp_path / 'm.onnx')}")
    ids = symbol_ids("Hello.")
    mel = frames_of(upstream, "Hello.")
    assert upstream.speak("Hello.", WANTED).stated == {"preset": "matcha"}
    np.testing.assert_allclose(mel, np.repeat(-0.01 * np.array(ids[:-1])[:, None], 80, axis=1), atol=1e-6)


def test_pace_is_the_models_length_scale(tmp_path: Path) -> None:
    upstream = open_upstream(f"matcha:{save_model(tmp_path / 'm.onnx')}")
    assert len(frames_of(upstream, "Hello.", manner=Manner(1 / 3))) == len(symbol_ids("Hello.")) - 3


def test_speaker_of_several_is_chosen_by_number(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.onnx", speakers=True)
    assert frames_of(open_upstream(f"matcha:{path}", "4"), "a")[0, 0] == pytest.approx(-4)
    assert frames_of(open_upstream(f"matcha:{path}"), "a")[0, 0] == pytest.approx(0)


@pytest.mark.parametrize("text", ["", "...", "()"])
def test_text_without_words_has_no_frames(tmp_path: Path, text: str) -> None:
    assert len(frames_of(open_upstream(f"matcha:{save_model(tmp_path / 'm.onnx')}"), text)) == 0


def test_file_that_is_no_matcha_model_raises(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    with pytest.raises(UpstreamError, match=r"cannot load .*x\.onnx"):
        open_upstream(f"matcha:{tmp_path / 'x.onnx'}")
    with pytest.raises(UpstreamError, match=r"cannot load /nowhere\.onnx"):
        open_upstream("matcha:/nowhere.onnx")
    with pytest.raises(UpstreamError, match="exported with a vocoder; export it without --vocoder-name"):
        open_upstream(f"matcha:{save_model(tmp_path / 'v.onnx', outputs=('wav', 'wav_lengths'))}")
    with pytest.raises(UpstreamError, match="makes a, b; a Matcha export takes scales, x, x_lengths"):
        open_upstream(f"matcha:{save_model(tmp_path / 'o.onnx', outputs=('a', 'b'))}")


def test_speaker_that_cannot_be_raises(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.onnx")
    with pytest.raises(UpstreamError, match="has one speaker; leave the voice '2' out"):
        open_upstream(f"matcha:{path}", "2")
    with pytest.raises(UpstreamError, match="is the number of a speaker; got 'heart'"):
        open_upstream(f"matcha:{path}", "heart")


def test_phonemes_keep_stress_and_punctuation() -> None:
    assert phonemes.phonemes("Hello, world!  Really?") == "həlˈoʊ, wˈɜːld! ɹˈiəli?"


def test_numbers_of_symbols_are_those_of_the_training() -> None:
    assert [NUMBERS[symbol] for symbol in "_;: Azɑ"] == [0, 1, 2, 16, 17, 68, 69]
    assert NUMBERS["'"] == 176 and NUMBERS["ᵻ"] == 177, "the apostrophe stands twice; the second place counts"
    assert symbol_ids("a")[0::2] == [0] * len(symbol_ids("a")[0::2])
