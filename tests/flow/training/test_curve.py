"""The curve of a run: thinned for a card, drawn as a picture, and kept with its losses."""

from pathlib import Path

from glowd.flow.training.curve import Curve, Point, as_csv, thinned
from glowd.flow.training.plot import curve_png


def test_point_ends_a_stretch_of_losses() -> None:
    curve = Curve()
    curve.losses += [1.0, 3.0]
    assert curve.mean_loss == 2.0
    curve.add(Point(2, 0.5, curve.mean_loss, 1.5, 1e-3))
    curve.losses += [4.0]
    resumed = Curve()
    resumed.load_state_dict(curve.state_dict())
    assert resumed.points == [Point(2, 0.5, 2.0, 1.5, 1e-3)] and resumed.losses == [4.0]
    assert Curve().mean_loss == 0.0


def test_table_has_a_heading_and_empty_cells() -> None:
    text = as_csv([Point(2, 0.5, 2.0, 1.5, 1e-3)])
    assert text.splitlines() == ["step,seconds,train,validation,lr,spectral", "2,0.5,2.0,1.5,0.001,"]


def test_long_curve_is_thinned_for_the_card() -> None:
    curve = [Point(step, 1.23456, -1.0, -2.0, 1e-3) for step in range(1, 1001)]
    short = thinned(curve, 100)
    assert len(short) == 100 and short[-1] == [1000, 1.2, -1.0, -2.0, 1e-3]
    assert thinned([curve[0]._replace(spectral=0.98765)]) == [[1, 1.2, -1.0, -2.0, 1e-3, 0.9877]]
    assert thinned([]) == [] and len(thinned(curve[:7], 100)) == 7


def png_size(path: Path) -> tuple[int, int]:
    """Width and height as the header of a PNG says."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def test_picture_has_a_panel_for_each_quantity(tmp_path: Path) -> None:
    curve = [Point(step, step / 2, 1.0 / step - 5, 1.0 / step - 5.1, 1e-3) for step in range(1, 200)]
    sizes = []
    for points in (curve[:1], curve, [p._replace(spectral=0.5 + 1 / p.step) for p in curve[100:]]):
        (tmp_path / "curve.png").write_bytes(curve_png(points))
        sizes.append(png_size(tmp_path / "curve.png"))
    assert sizes == [(880, 528), (880, 528), (880, 792)]
