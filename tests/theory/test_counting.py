import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lora_course import theory as t

SHAPES = [(6, 5, 2), (10, 7, 3), (12, 12, 4)]


def flops(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_square_layer_of_width_1024_with_rank_8_has_64_times_fewer_parameters():
    assert t.full_parameters(1024, 1024) == 1_048_576
    assert t.adapter_parameters(1024, 1024, 8) == 16_384
    assert t.compression_ratio(1024, 1024, 8) == 64


def test_square_layer_of_width_4096_with_rank_8_has_256_times_fewer_parameters():
    assert t.compression_ratio(4096, 4096, 8) == 256
    assert t.adapter_parameters(4096, 4096, 8) == 65_536


@pytest.mark.parametrize("d,k,r", [(6, 5, 2), (48, 20, 3), (7, 9, 12)])
def test_parameters_are_the_entries_of_the_arrays(d, k, r):
    B, A = np.ones((d, r)), np.ones((r, k))
    assert t.full_parameters(d, k) == (B @ A).size
    assert t.adapter_parameters(d, k, r) == B.size + A.size


@pytest.mark.parametrize("d,k", [(1024, 1024), (48, 20), (7, 900)])
def test_pair_saves_parameters_exactly_below_the_break_even_rank(d, k):
    for r in range(1, min(d, k) + 1):
        assert (t.adapter_parameters(d, k, r) < t.full_parameters(d, k)) == (r < t.break_even_rank(d, k))


def test_break_even_rank_of_a_square_layer_is_half_its_width():
    assert t.break_even_rank(1024, 1024) == 512
    assert t.adapter_parameters(1024, 1024, 600) == 1_228_800 > t.full_parameters(1024, 1024)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("d,k,r", SHAPES)
def test_product_jacobian_is_the_derivative_of_the_product(d, k, r, seed):
    rng = np.random.default_rng(seed)
    B, A = rng.standard_normal((d, r)), rng.standard_normal((r, k))
    pair = torch.tensor(B), torch.tensor(A)
    by_torch = torch.autograd.functional.jacobian(lambda b, a: b @ a, pair)
    by_torch = torch.cat([block.reshape(d * k, -1) for block in by_torch], dim=1).numpy()
    np.testing.assert_allclose(t.product_jacobian(B, A), by_torch, rtol=0, atol=1e-14)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("d,k,r,dof", [(6, 5, 2, 18), (10, 7, 3, 42), (12, 12, 4, 80)])
def test_degrees_of_freedom_are_the_jacobian_rank_of_the_product(d, k, r, dof, seed):
    rng = np.random.default_rng(seed)
    B, A = rng.standard_normal((d, r)), rng.standard_normal((r, k))
    assert np.linalg.matrix_rank(t.product_jacobian(B, A)) == t.degrees_of_freedom(d, k, r) == dof


@pytest.mark.parametrize("d,k,r", SHAPES)
def test_degrees_of_freedom_are_the_parameters_minus_the_gauge_freedom(d, k, r):
    assert t.degrees_of_freedom(d, k, r) == t.adapter_parameters(d, k, r) - r * r


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("d,k,r", SHAPES)
def test_at_the_start_b_equals_zero_only_d_r_directions_are_open(d, k, r, seed):
    A = np.random.default_rng(seed).standard_normal((r, k))
    assert np.linalg.matrix_rank(t.product_jacobian(np.zeros((d, r)), A)) == d * r


def test_full_rank_matrices_have_all_degrees_of_freedom():
    assert t.degrees_of_freedom(6, 5, 5) == t.full_parameters(6, 5)
    assert t.degrees_of_freedom(4096, 4096, 8) == 65_472


@pytest.mark.parametrize("d,k,r", [(6, 5, 2), (4, 9, 7), (9, 4, 7)])
def test_share_of_branch_dimensions_is_the_rank_of_a_generic_branch(d, k, r):
    rng = np.random.default_rng(0)
    BA = rng.standard_normal((d, r)) @ rng.standard_normal((r, k))
    assert t.share_of_branch_dimensions(d, k, r) == np.linalg.matrix_rank(BA) / k


def test_branch_of_rank_8_in_4096_passes_a_fifth_of_a_percent_of_the_dimensions():
    assert 1 - t.share_of_branch_dimensions(4096, 4096, 8) == pytest.approx(0.998, abs=5e-5)


@pytest.mark.parametrize("d,k,r,tokens", [(6, 5, 2, 1), (48, 20, 3, 7)])
def test_flops_of_both_orders_are_those_that_torch_counts(d, k, r, tokens):
    W, B, A, x = torch.ones(d, k), torch.ones(d, r), torch.ones(r, k), torch.ones(k, tokens)
    assert flops(lambda: W @ x) == t.flops_base(d, k, tokens)
    assert flops(lambda: B @ (A @ x)) == t.flops_factored(d, k, r, tokens)
    assert flops(lambda: (B @ A) @ x) == t.flops_product_first(d, k, r, tokens)


def test_one_multiplication_and_one_addition_per_pass_of_the_innermost_loop():
    d, k, r, tokens = 4, 3, 2, 5
    multiplications = sum(1 for _ in range(tokens) for _ in range(r) for _ in range(k))
    multiplications += sum(1 for _ in range(tokens) for _ in range(d) for _ in range(r))
    assert t.flops_factored(d, k, r, tokens) == 2 * multiplications


@pytest.mark.parametrize("d,k,r", [(48, 20, 3), (20, 48, 3), (64, 64, 8)])
def test_product_first_pays_only_with_r_above_the_break_even_rank_and_many_tokens(d, k, r):
    for tokens in (1, 10, 10_000):
        assert t.flops_factored(d, k, r, tokens) < t.flops_product_first(d, k, r, tokens)
    above = int(t.break_even_rank(d, k)) + 1
    assert t.flops_factored(d, k, above, 10_000) > t.flops_product_first(d, k, above, 10_000)


@pytest.mark.parametrize("d,k,r,tokens", [(6, 5, 2, 3), (48, 20, 3, 7)])
def test_training_flops_are_those_that_torch_counts(d, k, r, tokens):
    W = torch.randn(d, k, requires_grad=True)
    x = torch.randn(tokens, k, requires_grad=True)
    assert flops(lambda: (x @ W.T).sum().backward()) == t.training_flops_full(d, k, tokens)
    W0 = W.detach()
    B, A = torch.randn(d, r, requires_grad=True), torch.randn(r, k, requires_grad=True)
    count = flops(lambda: (x @ W0.T + x @ A.T @ B.T).sum().backward())
    assert count == t.training_flops_lora(d, k, r, tokens)


def test_training_flops_of_small_rank_are_two_thirds_of_full_training():
    ratio = t.training_flops_lora(4096, 4096, 8) / t.training_flops_full(4096, 4096)
    assert 2 / 3 < ratio < 0.672


@pytest.mark.parametrize("parameters,bits,size", [(16_384, 16, 32_768), (3, 4, 2), (1, 1, 1), (0, 8, 0)])
def test_storage_is_whole_bytes(parameters, bits, size):
    assert t.storage_bytes(parameters, bits) == size


@pytest.mark.parametrize("optimizer,moments", [(torch.optim.AdamW, 2), (torch.optim.SGD, 0)])
def test_training_bytes_are_those_that_torch_holds_after_a_step(optimizer, moments):
    d, k, r = 48, 20, 3
    W0 = torch.ones(d, k, dtype=torch.bfloat16)
    B, A = torch.ones(d, r, requires_grad=True), torch.ones(r, k, requires_grad=True)
    opt = optimizer([B, A], lr=0.1)
    (W0.float() + B @ A).square().sum().backward()
    opt.step()
    states = [s for p in (B, A) for s in opt.state[p].values() if torch.is_tensor(s) and s.ndim]
    held = t.training_bytes(W0.numel(), t.adapter_parameters(d, k, r), moments=moments)
    assert held.frozen == W0.nbytes
    assert held.trainable == held.gradients == B.nbytes + A.nbytes == B.grad.nbytes + A.grad.nbytes
    assert held.optimizer == sum(s.nbytes for s in states)
    assert held.total == held.frozen + 2 * held.trainable + held.optimizer


@pytest.mark.parametrize("name", ["d", "k", "r"])
@pytest.mark.parametrize("value,error", [(0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)])
def test_bad_sizes_are_named(name, value, error):
    arguments = {"d": 6, "k": 5, "r": 2, name: value}
    for count in (t.adapter_parameters, t.flops_factored, t.share_of_branch_dimensions):
        with pytest.raises(error, match=rf"^{name} must be .*{value}"):
            count(**arguments)


def test_errors_say_what_would_be_right():
    with pytest.raises(ValueError, match=r"r must be at most 5 .*got 6"):
        t.degrees_of_freedom(6, 5, 6)
    with pytest.raises(ValueError, match=r"same r, got \(6, 2\) and \(3, 5\)"):
        t.product_jacobian(np.ones((6, 2)), np.ones((3, 5)))
    with pytest.raises(ValueError, match="frozen must be at least 0, got -1"):
        t.training_bytes(-1, 3)
    with pytest.raises(ValueError, match="tokens must be at least 1, got 0"):
        t.flops_base(6, 5, 0)


def test_numpy_integers_are_integers():
    assert t.adapter_parameters(np.int64(6), np.int32(5), np.uint8(2)) == 22
