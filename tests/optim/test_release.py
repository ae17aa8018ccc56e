"""Steps within the backward pass: the same steps, and never two gradients at once."""

import copy

import pytest
import torch
from torch import nn

import lognet
from lognet import LogTensor
from lognet.optim import Madam


def network(bits=8):
    """A network with tied weights, float parameters among LogTensors, and one parameter that nobody uses."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3))
    model[2].weight = nn.Parameter(model[2].weight.detach().clone())
    model.append(nn.Tanh())
    model.append(nn.Linear(3, 3))
    model.unused = nn.Linear(2, 2)
    model.again = model[2]  # used twice: one gradient, the sum
    lognet.wrap(model, bits=bits, exclude="4")
    return model


def loss_of(model, x):
    y = model[1](model[0](x))
    y = model[3](model.again(torch.tanh(model[2](y))))
    return model[6](model[5](model[4](y))).square().mean()


def trained(released, steps=5, **options):
    """Weights and state after some steps with a schedule and two groups."""
    model = network()
    first, *rest = model.parameters()
    optimizer = Madam([{"params": rest}, {"params": [first], "lr": 0.05}], warmup=2, **options)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
    if released:
        optimizer.step_in_backward()
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, torch.randn(7, 6, generator=generator)).backward()
        if released:
            assert all(p.grad is None for p in model.parameters())
        optimizer.step()
        scheduler.step()
    return model, optimizer


@pytest.mark.parametrize(
    "options",
    [{}, {"state_bits": 4}, {"momentum": 0.0, "rounding": "nearest"}, {"affine": 0.0, "sign_crossing": False}],
    ids=str,
)
def test_the_steps_are_those_of_ordinary_training_bit_for_bit(options):
    (released, state), (ordinary, expected) = trained(True, **options), trained(False, **options)
    for p, q in zip(released.parameters(), ordinary.parameters(), strict=True):
        assert torch.equal(p.detach(), q.detach())
        if isinstance(p, LogTensor):
            assert all(torch.equal(a, b) for a, b in zip(p.codes(), q.codes(), strict=True))
    found, wanted = state.state_dict(), expected.state_dict()
    assert found["param_groups"] == wanted["param_groups"]
    assert found["state"].keys() == wanted["state"].keys()
    for index, values in wanted["state"].items():
        torch.testing.assert_close(found["state"][index], values, rtol=0, atol=0)


def test_gradients_never_coexist():
    model = network()
    optimizer = Madam(model.parameters())
    alive = []
    optimizer.step_in_backward()
    for p in model.parameters():  # after the hooks of the optimizer
        p.register_post_accumulate_grad_hook(
            lambda p: alive.append(sum(q.grad is not None for q in model.parameters()))
        )
    loss_of(model, torch.randn(4, 6)).backward()
    used = [p for name, p in model.named_parameters() if not name.startswith("unused")]
    assert alive == [0] * len(used)
    assert [int(optimizer.state[p]["step"]) for p in used] == [1] * len(used)


def test_hooks_are_removed_and_later_groups_take_ordinary_steps():
    model, late = network(), nn.Parameter(torch.ones(3))
    optimizer = Madam(model.parameters(), warmup=0)
    with optimizer.step_in_backward():
        optimizer.add_param_group({"params": [late]})
        (loss_of(model, torch.randn(4, 6)) + late.sum()).backward()
        assert late.grad is not None
        optimizer.step()
        assert bool((late != 1).all())
    before = [p.detach().clone() for p in model.parameters()]
    loss_of(model, torch.randn(4, 6)).backward()
    assert all(torch.equal(p.detach(), b) for p, b in zip(model.parameters(), before, strict=True))
    assert model[0].weight.grad is not None


def test_a_loaded_state_counts_from_the_next_backward_pass_on():
    """Loading replaces the groups: the hooks must look at those that are there."""
    (model, optimizer), (ordinary, other) = trained(True), trained(False)
    for o in (optimizer, other):
        o.load_state_dict(copy.deepcopy(o.state_dict()))
        o.param_groups[0]["lr"], o.param_groups[1]["lr"] = 0.3, 0.0
    x = torch.randn(5, 6)
    other.zero_grad()
    loss_of(model, x).backward()
    loss_of(ordinary, x).backward()
    other.step()
    assert all(
        torch.equal(p.detach(), q.detach()) for p, q in zip(model.parameters(), ordinary.parameters(), strict=True)
    )
