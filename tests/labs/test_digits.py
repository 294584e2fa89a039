"""The digits experiment: real data, split without overlap, the same for the same seed, no global RNG touched."""

import pytest
import torch

from lora_course.labs.digits import accuracy, digit_network, digits, fit


def test_the_split_is_a_partition_of_the_1797_digits():
    data = digits(seed=3)
    assert len(data.x_train) == 1257 and len(data.x_test) == 540
    rows = torch.cat([data.x_train, data.x_test])
    everything = torch.cat([digits(seed=0).x_train, digits(seed=0).x_test])
    assert torch.equal(rows.sum(0), everything.sum(0)) and rows.min() == 0 and rows.max() == 1


def test_four_quarter_turns_are_the_identity_and_one_is_not():
    data = digits()
    assert torch.equal(data.rotated(2).rotated(2).x_test, data.x_test)
    assert torch.equal(data.rotated(4).x_train, data.x_train) and torch.equal(data.rotated().y_test, data.y_test)
    picture = data.x_test[0].reshape(8, 8)
    assert torch.equal(data.rotated().x_test[0].reshape(8, 8), torch.rot90(picture)) and not torch.equal(
        data.rotated().x_test, data.x_test
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_training_learns_the_digits_and_is_the_same_for_the_same_seed(seed):
    before, data = torch.get_rng_state(), digits(seed)
    runs = []
    for _ in range(2):
        net = digit_network(seed)
        losses = fit(net, data.x_train, data.y_train, steps=150, lr=3e-3, seed=seed)
        runs.append((losses, accuracy(net, data.x_test, data.y_test)))
    assert runs[0] == runs[1] and runs[0][1] > 0.9
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_start_uniform_with_the_scale_of_nn_linear():
    for layer in digit_network(seed=5)[::2]:
        bound = layer.in_features**-0.5
        assert layer.weight.abs().max() <= bound and abs(layer.weight.std() - bound / 3**0.5) < 0.05 * bound


def test_bad_arguments_are_named():
    data, net = digits(), digit_network()
    for name, value in {"steps": 0, "lr": -1.0, "batch": 0}.items():
        with pytest.raises(ValueError, match=f"{name}="):
            fit(net, data.x_train, data.y_train, **({"steps": 1, "lr": 1e-3} | {name: value}))
    with pytest.raises(ValueError, match="no trainable parameter"):
        fit(net.requires_grad_(False), data.x_train, data.y_train, steps=1, lr=1e-3)
    with pytest.raises(TypeError, match="seed="):
        digits(seed=0.5)
    with pytest.raises(TypeError, match="quarter_turns="):
        data.rotated(1.5)
    with pytest.raises(ValueError, match="no rows"):
        accuracy(net, data.x_test[:0], data.y_test[:0])
