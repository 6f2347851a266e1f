"""The demo command end to end, with training cut short: what it prints and leaves behind, not how well it fits."""

import re
from contextlib import redirect_stdout
from io import StringIO

import anndata as ad
import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

from matplotlib import image
from matplotlib import pyplot as plt

import uotcell._demo
from uotcell.__main__ import main

MAPS = ["identity", "entropic OT", "entropic UOT", "OT-ICNN", "UOT-ICNN"]
COMMON = ["mass", "ESS source", "ESS target", "held-out"]
EXPECTED = {
    "reprogramming": (["day 10 → 10.5", "day 10.5 → 11"], ["Epithelial", "Stromal", "Trophoblast"]),
    "hematopoiesis": (["day 2 → 4", "day 4 → 6"], ["clonal fate"]),
}


@pytest.fixture(scope="module", params=list(EXPECTED))
def run(request, tmp_path_factory):
    """Name of the data, folder of the results, and what was printed."""
    out, printed = tmp_path_factory.mktemp("demo") / "new" / "folder", StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(uotcell._demo, "N_ITERS", 6)
        main(["demo", "--data", request.param, "--out", str(out), "--seed", "1"])
    plt.close("all")
    return request.param, out, printed.getvalue()


def read_table(text):
    """Tables of all pairs: pair → map → column → value."""
    tables = {}
    for block in text.split("\n\n"):
        header, *rows = block.strip().split("\n")
        if header.startswith("day"):
            pair, *columns = re.split(r"\s{2,}", header.strip())
            values = {row[:16].strip(): row[16:].split() for row in rows[: len(MAPS)]}
            tables[pair] = {name: dict(zip(columns, cells, strict=True)) for name, cells in values.items()}
    return tables


def test_table(run):
    data, _, text = run
    pairs, scores = EXPECTED[data]
    tables = read_table(text)
    assert list(tables) == pairs
    for table in tables.values():
        assert list(table) == MAPS
        assert all(list(row) == COMMON + scores for row in table.values())
        values = {name: {c: float(v) for c, v in row.items() if v != "-"} for name, row in table.items()}
        for name in ("identity", "entropic OT", "OT-ICNN"):
            assert values[name]["mass"] == 1.0
        for name in ("entropic UOT", "UOT-ICNN"):
            assert 0.0 < values[name]["mass"] < 1.0
            assert values[name]["ESS source"] < values["OT-ICNN"]["ESS source"]
        for row in values.values():
            assert row["held-out"] > 0.0
            assert all(0.0 <= row[score] <= 1.0 for score in scores if score in row)


def test_scores_without_cells_are_dashes(run):
    data, _, text = run
    dashes = {
        (pair, c)
        for pair, table in read_table(text).items()
        for row in table.values()
        for c, v in row.items()
        if v == "-"
    }
    # Day 10 of the reprogramming data has no Trophoblast cell.
    assert dashes == ({("day 10 → 10.5", "Trophoblast")} if data == "reprogramming" else set())


def test_text_around_the_table(run):
    data, out, text = run
    adata = getattr(uotcell.datasets, data)()
    assert f"{adata.n_obs:,} cells" in text
    for day, n_cells in adata.obs["day"].value_counts().items():
        assert f"day {day:g}: {n_cells}" in text
    assert "mass: transported share of the source, τ = 1 (OT) and 0.95 (UOT)" in text
    assert str(out / "trajectory.h5ad") in text
    assert str(out / "velocity_stream.png") in text
    assert "nan" not in text
    assert max(map(len, text.replace(str(out), "").split("\n"))) <= 120


def test_h5ad_holds_both_fits(run):
    data, out, _ = run
    adata, before = ad.read_h5ad(out / "trajectory.h5ad"), getattr(uotcell.datasets, data)()
    assert adata.shape == before.shape
    sources = (adata.obs["day"] < adata.obs["day"].max()).to_numpy()
    for key, tau in (("ot", 1.0), ("uot", 0.95)):
        params = adata.uns[key]["params"]
        assert (params["tau"], params["rng"], params["n_iters"], params["time_key"]) == (tau, 1, 6, "day")
        assert len(adata.uns[key]["metrics"]) == 2
        for slot in ("push", "velocity"):
            values = adata.obsm[f"{key}_{slot}"]
            assert (values.shape, values.dtype) == (adata.obsm["X_pca"].shape, np.float32)
            np.testing.assert_array_equal(np.isfinite(values).all(axis=1), sources)
        np.testing.assert_array_equal(adata.obs[f"{key}_source_weight"].notna(), sources)
    np.testing.assert_allclose(adata.obs["ot_source_weight"].dropna(), 1.0, rtol=1e-3)
    assert adata.obs["uot_source_weight"].std() > 0.1


def test_picture_shows_something(run):
    pixels = image.imread(run[1] / "velocity_stream.png")
    height, width = pixels.shape[:2]
    assert 400 < height < 3_000
    assert 400 < width < 4_000
    colors, counts = np.unique((pixels[..., :3].reshape(-1, 3) * 255).astype(int), axis=0, return_counts=True)
    assert len(colors) > 100
    ink = 1 - counts.max() / counts.sum()
    assert 0.05 < ink < 0.95
    assert not pixels[..., :3].max() < 1.0  # the background is white
    dark = (pixels[..., :3].max(axis=-1) < 0.1).mean()
    assert dark > 0.002  # the streams are black


def test_same_files_are_overwritten(run):
    assert sorted(path.name for path in run[1].iterdir()) == ["trajectory.h5ad", "velocity_stream.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demonstrate"], "invalid choice: 'demonstrate'"),
        ([], "arguments are required: command"),
        (["demo", "--data", "pbmc"], "argument --data: invalid choice: 'pbmc'"),
        (["demo", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["demo", "--cells", "3"], "unrecognized arguments: --cells 3"),
    ],
)
def test_wrong_command_lines_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "usage: python -m uotcell" in err
    assert message in err


def test_help(capsys):
    with pytest.raises(SystemExit) as raised:
        main(["--help"])
    assert raised.value.code == 0
    assert "demo" in capsys.readouterr().out
