import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_course import theory as t

SEEDS = pytest.mark.parametrize("seed", range(5))


def random_matrix(seed, d=12, k=9, decay=0.0):
    r"""Gaussian for decay = 0, else with singular values falling like i^-decay."""
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((d, k))
    if not decay:
        return W
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    return U * np.arange(1, len(s) + 1.0) ** -decay @ Vt


def with_spectrum(s, seed=0):
    rng = np.random.default_rng(seed)
    U, _ = np.linalg.qr(rng.standard_normal((len(s) + 3, len(s))))
    V, _ = np.linalg.qr(rng.standard_normal((len(s) + 1, len(s))))
    return U * np.asarray(s, dtype=float) @ V.T


@SEEDS
def test_singular_values_are_roots_of_the_eigenvalues_of_the_gram_matrix(seed):
    W = random_matrix(seed)
    eigenvalues = np.linalg.eigvalsh(W.T @ W)[::-1]
    np.testing.assert_allclose(t.singular_values(W) ** 2, eigenvalues, rtol=1e-10)


@SEEDS
def test_all_singular_triplets_give_the_matrix_back(seed):
    W = random_matrix(seed, 7, 11)
    U, s, Vt = t.truncated_svd(W, 7)
    np.testing.assert_allclose(U * s @ Vt, W, atol=1e-13)
    U, s, Vt = t.truncated_svd(W, 3)
    assert U.shape == (7, 3) and s.shape == (3,) and Vt.shape == (3, 11)
    np.testing.assert_allclose(U.T @ U, np.eye(3), atol=1e-13)
    np.testing.assert_allclose(Vt @ Vt.T, np.eye(3), atol=1e-13)


@SEEDS
@pytest.mark.parametrize("r", [1, 3, 8])
def test_eckart_young_the_truncation_leaves_exactly_the_tail(seed, r):
    W = random_matrix(seed, decay=0.7)
    nearest = t.best_approximation(W, r)
    assert np.linalg.matrix_rank(nearest) == r
    assert np.linalg.norm(W - nearest) ** 2 == pytest.approx(t.tail_energy(W, r), rel=1e-10)


@SEEDS
def test_eckart_young_no_matrix_of_rank_r_is_nearer(seed):
    W, rng, r = random_matrix(seed, decay=0.7), np.random.default_rng(seed), 3
    U, s, Vt = t.truncated_svd(W, r)
    least = np.linalg.norm(W - U * s @ Vt)
    for trial in range(200):
        B, A = rng.standard_normal((12, r)), rng.standard_normal((r, 9))
        if trial % 2:  # near the optimum, where a wrong truncation would be found out
            B, A = U * s + 1e-3 * B, Vt + 1e-3 * A
        B = W @ np.linalg.pinv(A)  # the best B for this A: a rival as strong as can be
        assert np.linalg.norm(W - B @ A) >= least * (1 - 1e-12)


def test_gaussian_matrix_of_width_512_keeps_nearly_all_its_norm_in_the_tail():
    W = random_matrix(0, 512, 512)
    left = [np.sqrt(t.tail_energy(W, r)) / np.linalg.norm(W) for r in (2, 8, 32)]
    np.testing.assert_allclose(left, [0.992, 0.970, 0.888], atol=2e-3)


@SEEDS
def test_energy_rank_is_the_first_rank_that_holds_the_share(seed):
    W = random_matrix(seed, decay=0.5)
    total = np.linalg.norm(W) ** 2
    for share in (0.3, 0.9, 0.99):
        r = t.energy_rank(W, share)
        assert t.tail_energy(W, r) <= (1 - share) * total * (1 + 1e-12)
        assert t.tail_energy(W, r - 1) > (1 - share) * total


@SEEDS
@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0])
def test_stable_rank_le_effective_rank_le_rank(seed, decay):
    W = random_matrix(seed, decay=decay)
    assert 1 <= t.stable_rank(W) <= t.effective_rank(W) <= t.numerical_rank(W) == 9


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8), st.floats(0.01, 0.999))
def test_order_of_the_ranks_holds_for_every_spectrum(s, share):
    W, slack = np.diag(s), 1 + 1e-9
    assert 1 <= t.stable_rank(W) * slack
    assert t.stable_rank(W) <= t.effective_rank(W) * slack
    assert t.effective_rank(W) <= len(s) * slack
    assert share * t.stable_rank(W) <= t.energy_rank(W, share) * slack
    assert t.energy_rank(W, share) <= len(s)


def test_energy_rank_and_effective_rank_have_no_order():
    steep, flat = np.diag([10.0, 1, 1, 1, 1]), np.eye(5)
    assert t.energy_rank(steep) < t.effective_rank(steep)
    assert t.energy_rank(np.diag([1.0, 0.6]), 0.9) > t.effective_rank(np.diag([1.0, 0.6]))
    assert t.energy_rank(flat) == t.effective_rank(flat).__round__() == 5


@pytest.mark.parametrize("n", [1, 4, 7])
def test_all_ranks_agree_where_the_singular_values_are_equal(n):
    W = with_spectrum([3.0] * n)
    for rank in (t.stable_rank, t.effective_rank, t.numerical_rank, lambda W: t.energy_rank(W, 0.999)):
        assert rank(W) == pytest.approx(n, rel=1e-9)


@SEEDS
def test_ranks_ignore_scale_and_rotation(seed):
    W = random_matrix(seed, decay=1.0)
    Q, _ = np.linalg.qr(random_matrix(seed + 100, 12, 12))
    for rank in (t.stable_rank, t.effective_rank, t.numerical_rank, t.energy_rank):
        assert rank(Q @ W * 7.0) == pytest.approx(rank(W), rel=1e-9)


def test_stable_rank_of_a_known_spectrum():
    W = with_spectrum([2.0, 1.0, 1.0])
    assert t.stable_rank(W) == pytest.approx(6 / 4)
    p = np.array([0.5, 0.25, 0.25])
    assert t.effective_rank(W) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_the_start_delta_w_equals_zero_has_rank_zero():
    W = np.zeros((6, 5))
    assert t.stable_rank(W) == t.effective_rank(W) == t.energy_rank(W) == t.numerical_rank(W) == 0
    assert t.tail_energy(W, 0) == 0


@SEEDS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numerical_rank_of_a_product_is_r_in_either_precision(seed, dtype):
    B, A = random_matrix(seed, 40, 3).astype(dtype), random_matrix(seed + 50, 3, 30).astype(dtype)
    assert t.numerical_rank(B @ A) == 3
    assert t.numerical_rank(random_matrix(seed, 40, 30).astype(dtype) + B @ A) == 30


def test_numerical_rank_counts_above_the_given_threshold():
    W = with_spectrum([1.0, 1e-2, 1e-4])
    assert [t.numerical_rank(W, rtol) for rtol in (0.5, 1e-3, 1e-5)] == [1, 2, 3]


@SEEDS
@pytest.mark.parametrize("r", [2, 8])
def test_recovery_through_a_branch_of_rank_r_is_r_over_k(seed, r):
    rng, k = np.random.default_rng(seed), 32
    x = rng.standard_normal((6000, k))
    A, B = rng.standard_normal((r, k)), rng.standard_normal((40, r))
    assert t.recovery_r2(x, x @ A.T @ B.T) == pytest.approx(r / k, abs=0.02)


@SEEDS
def test_recovery_through_the_whole_layer_is_one(seed):
    rng, k, r = np.random.default_rng(seed), 32, 2
    x = rng.standard_normal((1000, k))
    W0, A, B = rng.standard_normal((40, k)), rng.standard_normal((r, k)), rng.standard_normal((40, r))
    assert t.recovery_r2(x, x @ (W0 + B @ A).T) == pytest.approx(1.0, abs=1e-9)


def test_recovery_from_noise_is_zero_and_a_shift_of_x_does_not_matter():
    rng = np.random.default_rng(0)
    x, h = rng.standard_normal((8000, 6)), rng.standard_normal((8000, 3))
    assert abs(t.recovery_r2(x, h)) < 0.01
    assert t.recovery_r2(x + 100.0, h - 5.0) == pytest.approx(t.recovery_r2(x, h), abs=1e-9)


def test_rounding_noise_of_float32_recovers_nothing():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 64)).astype(np.float32)
    A, B = rng.standard_normal((4, 64)), rng.standard_normal((64, 4))
    h = x @ A.T.astype(np.float32) @ B.T.astype(np.float32)
    assert t.recovery_r2(x, h) == pytest.approx(4 / 64, abs=0.01)


def test_recovery_refuses_a_fit_that_could_recover_anything():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="must have more rows: h has rank 14 on the 15 rows"):
        t.recovery_r2(rng.standard_normal((20, 6)), rng.standard_normal((20, 30)))


def test_torch_matrices_are_read():
    import torch

    assert t.stable_rank(torch.eye(3)) == 3
    with pytest.raises(TypeError, match="W must be a real matrix that numpy can read, got Parameter"):
        t.stable_rank(torch.nn.Parameter(torch.eye(3)))


@pytest.mark.parametrize(
    "W,error,words",
    [
        (np.ones(3), ValueError, r"W must be a matrix .* shape \(3,\)"),
        (np.ones((2, 0)), ValueError, r"W must be a matrix .* shape \(2, 0\)"),
        (np.array([[1.0, np.nan]]), ValueError, "W must be finite, it has 1 entries"),
        (np.ones((2, 2)) * 1j, TypeError, "W must be a real matrix"),
        ([[1, 2], [3]], TypeError, "W must be a real matrix"),
        ("words", TypeError, "W must be a real matrix"),
    ],
)
def test_bad_matrices_are_named(W, error, words):
    for function in (t.singular_values, t.stable_rank, t.effective_rank, t.energy_rank, t.numerical_rank):
        with pytest.raises(error, match=words):
            function(W)


def test_bad_parameters_are_named():
    W, x = np.eye(4), np.arange(12.0).reshape(6, 2)
    with pytest.raises(ValueError, match=r"r must be at most 4 \(min\(d, k\)\), got 5"):
        t.best_approximation(W, 5)
    with pytest.raises(ValueError, match="share must be above 0 and at most 1, got 1.5"):
        t.energy_rank(W, 1.5)
    with pytest.raises(ValueError, match="rtol must be at least 0 and below 1, got 2"):
        t.numerical_rank(W, 2)
    with pytest.raises(ValueError, match="same number of rows, got 6 and 5"):
        t.recovery_r2(x, x[:5])
    with pytest.raises(ValueError, match="share must leave rows"):
        t.recovery_r2(x, x, share=1.0)
    with pytest.raises(ValueError, match="x must vary"):
        t.recovery_r2(np.ones((6, 2)), x)


def test_arguments_are_left_alone():
    W = random_matrix(0)
    before = W.copy()
    t.best_approximation(W, 2), t.effective_rank(W), t.recovery_r2(W, W[:, :1])
    np.testing.assert_array_equal(W, before)
