"""The classroom demo prints what its curve is, saves its pictures without a display, and names bad values."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from lora_course.rank_demo import LoraConfig, main, pseudo_code, simulate_lora

SMALL = LoraConfig(hidden_size=64, rank_candidates=(2, 4, 8), alpha=6.0)


def test_the_defaults_are_those_of_the_source_text():
    config = LoraConfig()
    assert (config.hidden_size, config.rank_candidates, config.alpha) == (512, (2, 4, 8, 16, 32), 16.0)


@pytest.mark.parametrize("seed", range(3))
def test_the_error_is_the_norm_of_delta_and_near_its_line(tmp_path, seed):
    config = LoraConfig(hidden_size=256, alpha=6.0, seed=seed)
    for row in simulate_lora(config, tmp_path):
        assert row.error == pytest.approx(row.delta_norm, rel=1e-12)
        assert row.line == 6.0 * 256 / np.sqrt(row.r)
        assert row.error == pytest.approx(row.line, rel=0.2)
        assert row.product_norm == pytest.approx(row.error * row.r / 6.0, rel=1e-12)


def test_the_mean_square_of_delta_is_alpha_d_squared_over_r(tmp_path):
    rows = simulate_lora(LoraConfig(64, range(1, 61), 6.0), tmp_path)
    ratios = np.array([(row.delta_norm / row.line) ** 2 for row in rows])  # 60 draws, each of mean 1
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / np.sqrt(60) and ratios.std() < 0.2


def test_the_curve_falls_only_because_of_alpha_over_r(tmp_path):
    rows = simulate_lora(SMALL, tmp_path)
    errors, products = [row.error for row in rows], [row.product_norm for row in rows]
    assert errors == sorted(errors, reverse=True) and products == sorted(products)


def test_w0_cancels(tmp_path, monkeypatch):
    usual = [row.error for row in simulate_lora(SMALL, tmp_path)]
    draw = np.random.default_rng

    def another_w0(key):
        return draw([99, 99]) if key == [SMALL.seed, 0] else draw(key)

    monkeypatch.setattr(np.random, "default_rng", another_w0)
    rows = simulate_lora(SMALL, tmp_path)
    assert [row.error for row in rows] == pytest.approx(usual, rel=1e-12)


def test_the_svd_column_is_the_optimum_and_falls_with_the_rank(tmp_path):
    rows = simulate_lora(LoraConfig(24, (1, 5, 23, 24), 2.0), tmp_path)
    W0 = np.random.default_rng([0, 0]).standard_normal((24, 24))
    U, s, Vt = np.linalg.svd(W0)
    for row in rows:
        best = np.linalg.norm(W0 - U[:, : row.r] * s[: row.r] @ Vt[: row.r])
        assert row.svd_error == pytest.approx(best, abs=1e-10)
    assert [row.svd_error for row in rows] == sorted((row.svd_error for row in rows), reverse=True)


def test_a_rank_draws_the_same_whatever_the_other_ranks_are(tmp_path):
    assert simulate_lora(SMALL, tmp_path)[1] == simulate_lora(LoraConfig(64, [4], 6.0), tmp_path)[0]


def test_the_seed_decides_everything(tmp_path):
    other = LoraConfig(64, (2, 4, 8), 6.0, seed=1)
    assert simulate_lora(SMALL, tmp_path) == simulate_lora(SMALL, tmp_path) != simulate_lora(other, tmp_path)


def test_it_prints_every_rank_and_says_what_the_curve_is(tmp_path, capsys):
    rows = simulate_lora(SMALL, tmp_path)
    said = capsys.readouterr().out
    assert all(f"{row.error:.1f}" in said and f"{row.line:.1f}" in said for row in rows)
    assert "‖W0 - (W0 + ΔW)‖ = ‖ΔW‖" in said and "only because of the factor α/r" in said


@pytest.mark.parametrize("config", [SMALL, LoraConfig(1, (1,)), LoraConfig(3, (3, 1), 0.5)])
def test_it_saves_three_pictures(tmp_path, config):
    simulate_lora(config, tmp_path)
    for name in ("lora_rank_error.png", "lora_spectrum.png", "lora_heatmaps.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG") and (tmp_path / name).stat().st_size > 3000


def test_the_printed_layer_runs_and_is_lora(capsys):
    assert pseudo_code() is None
    code, names = capsys.readouterr().out, {}
    exec(code, names)
    layer = names["LoRALinear"](7, 5, r=3, alpha=4.5)
    x = torch.randn(2, 7)
    assert torch.equal(layer(x), x @ layer.weight.T)  # B = 0
    torch.nn.init.normal_(layer.lora_b)
    expected = x @ (layer.weight + 1.5 * layer.lora_b @ layer.lora_a).T
    assert torch.allclose(layer(x), expected, atol=1e-5)
    layer(x).sum().backward()
    assert layer.weight.grad is None and layer.lora_a.grad.any() and layer.lora_b.grad.any()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"hidden_size": 0}, ValueError, "hidden_size must be between 1 and 8192, got 0"),
        ({"hidden_size": 10**6}, ValueError, "hidden_size must be between 1 and 8192"),
        ({"hidden_size": 64.0}, TypeError, "hidden_size must be a whole number"),
        ({"rank_candidates": ()}, ValueError, "at least one rank"),
        ({"rank_candidates": (2, 2)}, ValueError, "each once"),
        ({"rank_candidates": (0,)}, ValueError, "each of rank_candidates must be between 1 and 512, got 0"),
        ({"rank_candidates": (513,)}, ValueError, "each of rank_candidates must be between 1 and 512, got 513"),
        ({"rank_candidates": (True,)}, TypeError, "each of rank_candidates must be a whole number"),
        ({"rank_candidates": 8}, TypeError, "rank_candidates must be a list or tuple"),
        ({"rank_candidates": "248"}, TypeError, "rank_candidates must be a list or tuple"),
        ({"alpha": 0}, ValueError, "alpha must be between"),
        ({"alpha": float("nan")}, ValueError, "alpha must be between"),
        ({"alpha": "16"}, TypeError, "alpha must be a real number"),
        ({"seed": -1}, ValueError, "seed must be between 0"),
    ],
)
def test_a_bad_value_is_named(change, error, says):
    with pytest.raises(error, match=says):
        LoraConfig(**change)


def test_a_bad_config_or_folder_is_named(tmp_path):
    with pytest.raises(TypeError, match="config must be a LoraConfig"):
        simulate_lora(512)
    with pytest.raises(NotADirectoryError, match="folder must be a directory that exists"):
        simulate_lora(SMALL, tmp_path / "none")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--ranks", "0"], "rank_candidates must be between 1 and 512"),
        (["--hidden-size", "4"], "rank_candidates must be between 1 and 4, got 8"),
        (["--alpha", "inf"], "alpha must be between"),
        (["--seed", "x"], "invalid int value: 'x'"),
        (["--folder", "/no/such/folder"], "folder must be a directory that exists"),
    ],
)
def test_on_the_command_line_a_bad_value_ends_with_status_2_and_one_line(capsys, arguments, says):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert says in shown.err.splitlines()[-1] and "Traceback" not in shown.err and not shown.out


def test_the_command_works_without_a_display_and_leaves_pyplot_alone(tmp_path):
    code = (
        "import sys; from lora_course.rank_demo import main; "
        "status = main(['--hidden-size', '32', '--ranks', '2', '4', '--seed', '3', '--alpha', '1.5']); "
        "assert 'matplotlib.pyplot' not in sys.modules; sys.exit(status)"
    )
    environment = {"PATH": "", "PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "class LoRALinear(nn.Module)" in done.stdout
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "lora_rank_error.png",
        "lora_spectrum.png",
        "lora_heatmaps.png",
    }


def test_help_says_what_the_options_are(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0
    assert all(option in said for option in ("--hidden-size", "--ranks", "--alpha", "--seed", "--folder"))
