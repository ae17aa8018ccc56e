import copy
import io
import math
import warnings

import pytest
import torch
from oracles.madam import Oracle
from torch import nn

import lognet
from lognet import LogTensor
from lognet.measure.memory import held_bytes
from lognet.optim import Madam

STEPS = 60


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def gradients(shape, dtype, steps=STEPS):
    """Gradients over ten orders of magnitude, with exact zeros among them."""
    for t in range(steps):
        g = normal(*shape, seed=100 + t) * 10.0 ** normal(*shape, seed=1).mul(2)
        g[normal(*shape, seed=500 + t) > 1] = 0
        yield g.to(dtype)


# The paper, step for step and code for code


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bias_correction", [True, False])
@pytest.mark.parametrize(("lr", "p_scale", "g_bound", "beta"), [(0.01, 3.0, 8.0, 0.999), (0.05, 2.0, 10.0, 0.9)])
def test_float_parameters_follow_algorithm_1(dtype, bias_correction, lr, p_scale, g_bound, beta):
    """In float32 and float64; in bfloat16 the gradients are, and the parameters float32."""
    shape, wide = (17, 5), torch.float32 if dtype == torch.bfloat16 else dtype
    w = nn.Parameter(normal(*shape, dtype=wide))
    optimizer = Madam.paper([w], lr, p_scale, g_bound, beta, bias_correction=bias_correction)
    sigma_star = p_scale * w.detach().double().square().mean().sqrt().item()
    oracles = [Oracle(lr, g_bound, beta, bias_correction) for _ in range(w.numel())]
    expected = w.detach().double().flatten().tolist()
    rtol = 1e-12 if dtype == torch.float64 else 1e-4
    for g in gradients(shape, dtype):
        w.grad = g.to(wide)
        optimizer.step()
        for i, gi in enumerate(g.double().flatten().tolist()):
            expected[i] = oracles[i].step_float(expected[i], gi, sigma_star)
        torch.testing.assert_close(
            w.detach().double().flatten(), torch.tensor(expected, dtype=torch.float64), rtol=rtol, atol=0
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bias_correction", [True, False])
@pytest.mark.parametrize(("bits", "base_precision"), [(12, 0.001), (10, 0.004), (8, 0.01), (8, None), (4, 0.3)])
def test_log_tensors_follow_section_4_1(dtype, bias_correction, bits, base_precision):
    """The dtype is that of the parameter, and so of the gradient."""
    shape = (17, 5)
    w = nn.Parameter(LogTensor.from_float(normal(*shape).to(dtype), bits=bits, base_precision=base_precision))
    optimizer = Madam.paper([w], lr=0.017, bias_correction=bias_correction)
    oracles = [Oracle(0.017, 8.0, 0.999, bias_correction) for _ in range(w.numel())]
    expected, signs = w.exponent.flatten().tolist(), w.signs.flatten().tolist()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Madam: lr=.* is below half a rung")
        for g in gradients(shape, dtype):
            w.grad = g
            optimizer.step()
            for i, gi in enumerate(g.double().flatten().tolist()):
                expected[i] = oracles[i].step_code(expected[i], signs[i], gi, w.base_precision, bits)
            assert w.exponent.flatten().tolist() == expected
    assert w.signs.flatten().tolist() == signs


def test_the_paper_is_fixed():
    w = nn.Parameter(torch.ones(2))
    group = Madam.paper([w]).param_groups[0]
    assert (group["lr"], group["p_scale"], group["g_bound"], group["beta"]) == (0.01, 3.0, 8.0, 0.999)
    assert (group["sign_crossing"], group["rounding"], group["momentum"]) == (False, "nearest", 0.0)
    with pytest.raises(TypeError, match="Madam.paper fixes rounding='nearest'"):
        Madam.paper([w], rounding="stochastic")


# Mixed models, state, and what is held


def small_model(bits=8, **kwargs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    return lognet.wrap(model, bits=bits, **kwargs)


def train(model, optimizer, steps, start=0, scheduler=None):
    losses = []
    for t in range(start, start + steps):
        x = normal(32, 6, seed=t, dtype=next(model.parameters()).dtype)
        target = torch.stack([x[:, 0] * x[:, 1], x[:, 2].abs(), x.sum(1)], 1)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), target)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("bits", [4, 8, 12])
def test_mixed_models_train(bits, momentum):
    model = small_model(bits, exclude="0")
    assert [isinstance(p, LogTensor) for p in model.parameters()] == [False, False, True, True]
    losses = train(model, Madam(model.parameters(), lr=0.03, momentum=momentum), 300)
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_all_zero_parameters_do_not_freeze():
    for wrapped in (False, True):
        model = nn.Linear(6, 3)
        nn.init.zeros_(model.weight)
        nn.init.zeros_(model.bias)
        if wrapped:
            lognet.wrap(model)
        for make in (Madam, Madam.paper):
            twin = copy.deepcopy(model)
            losses = train(twin, make(twin.parameters(), lr=0.05), 200)
            assert sum(losses[-50:]) < sum(losses[:50])
            assert (twin.weight.detach().abs() > 0.005).any()


def test_no_float_copy_of_a_log_tensor_outlives_a_step():
    model = lognet.wrap(nn.Linear(100, 100))
    n = 100 * 100 + 100
    for momentum, averages in ((0.8, 2), (0.0, 1)):
        for bits in (32, 16, 8, 4):
            optimizer = Madam(model.parameters(), momentum=momentum, state_bits=bits)
            model(torch.randn(4, 100)).sum().backward()
            optimizer.step()
            scales = 0 if bits == 32 else 4 / 128
            assert held_bytes(model) <= 9 / 8 * n + 2 * 256
            # and for each parameter a step, sigma and three counters
            assert held_bytes(optimizer) <= averages * ((bits / 8 + scales) * n + 8) + 2 * 100


def test_random_bits_depend_on_seed_step_index_and_element_only():
    def run(seed, threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.manual_seed(threads)  # the global generator must not matter
        params = [nn.Parameter(LogTensor.from_float(normal(3000, seed=0).float())) for _ in range(2)]
        optimizer = Madam(params, seed=seed)
        for t in range(3):
            for p in params:
                p.grad = normal(3000, seed=9 + t).float()
            optimizer.step()
        torch.set_num_threads(before)
        return [p.exponent for p in params]

    a, b, other = run(1, 1), run(1, 2), run(2, 1)
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[0], a[1])
    assert not torch.equal(a[0], other[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_resume_is_bit_for_bit(dtype, momentum):
    def make():
        model = small_model(exclude="0.bias").to(dtype)
        optimizer = Madam(model.parameters(), lr=torch.tensor(0.05), momentum=momentum, seed=3)
        return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)

    model, optimizer, scheduler = make()
    train(model, optimizer, 15, scheduler=scheduler)
    buffer = io.BytesIO()
    torch.save([x.state_dict() for x in (model, optimizer, scheduler)], buffer)
    losses = train(model, optimizer, 15, start=15, scheduler=scheduler)

    again = make()
    for x, state in zip(again, torch.load(io.BytesIO(buffer.getvalue()), weights_only=True), strict=True):
        x.load_state_dict(state)
    assert train(*again[:2], 15, start=15, scheduler=again[2]) == losses
    for p, q in zip(model.parameters(), again[0].parameters(), strict=True):
        assert torch.equal(p, q)
        for name, value in optimizer.state[p].items():
            assert again[1].state[q][name].dtype == value.dtype
            assert torch.equal(again[1].state[q][name], value)


def test_a_deep_copy_goes_on_alone():
    model = small_model()
    optimizer = Madam(model.parameters(), lr=0.05)
    train(model, optimizer, 5)
    twin_model, twin = copy.deepcopy((model, optimizer))
    assert train(model, optimizer, 5) == train(twin_model, twin, 5)


# The contract of torch.optim


def test_closure_scalars_groups_and_missing_gradients():
    scalar, idle = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.ones(3))
    wrapped = nn.Parameter(LogTensor.from_float(torch.tensor(2.0), scale=8.0))
    optimizer = Madam([{"params": [scalar, idle], "lr": 0.1}, {"params": [("w", wrapped)]}][:1], lr=0.2)
    optimizer.add_param_group({"params": [wrapped]})

    def closure():
        optimizer.zero_grad()
        loss = (scalar - 1) ** 2 + (wrapped - 1) ** 2
        loss.backward()
        return loss

    first = optimizer.step(closure)
    for _ in range(100):
        last = optimizer.step(closure)
    assert last < 0.1 * first
    assert torch.equal(idle, torch.ones(3))
    assert idle not in optimizer.state


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
def test_zero_gradients_and_a_vanishing_lr_move_nothing(wrapped, maximize):
    value = torch.tensor([1.0, -4.0, 0.5, 1e-4])
    w = nn.Parameter(LogTensor.from_float(value) if wrapped else value.clone())
    before = w.detach().clone()
    for lr, grad in ((0.1, torch.zeros(4)), (1e-28, torch.ones(4)), (0.0, torch.ones(4))):
        optimizer = Madam([w], lr=lr, maximize=maximize, p_scale=3.0)
        w.grad = grad
        for _ in range(20):
            optimizer.step()
        assert torch.equal(w, before)
    w.grad = torch.ones(4)
    Madam([w], lr=0.8, maximize=maximize, p_scale=3.0, warmup=0).step()
    assert ((w > before) if maximize else (w < before))[[0, 2]].all()


def test_entries_without_gradient_stay_even_beyond_the_clamp():
    for make, bounded in ((Madam.paper, True), (Madam, False)):  # ours lets such weights stay, but not grow
        w = nn.Parameter(torch.tensor([10.0] + [0.1] * 99))
        w.grad = torch.tensor([0.0] + [1.0] * 99)
        optimizer = make([w], p_scale=1.0)
        optimizer.step()
        assert w[0] == 10.0
        w.grad[0] = -1.0
        optimizer.step()
        assert w[0].item() == pytest.approx(optimizer.state[w]["sigma"].item() if bounded else 10.0, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, -math.inf, 1e30])
def test_non_finite_gradients_skip_their_parameter_with_one_warning(bad):
    model = small_model()
    optimizer = Madam(model.parameters(), lr=0.1, warmup=0)
    train(model, optimizer, 2)
    first, *others = model.parameters()
    state = copy.deepcopy(optimizer.state[first])
    before = [p.exponent.clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    first.grad[0, 0] = bad
    with pytest.warns(UserWarning, match=r"parameter 0 of shape \(16, 6\) has a gradient with NaN, infinity"):
        optimizer.step()
    optimizer.step()  # warnings are errors: no second one
    assert torch.equal(first.exponent, before[0])
    assert all(torch.equal(optimizer.state[first][k], v) for k, v in state.items())
    assert all((p.exponent != b).any() for p, b in zip(others, before[1:], strict=True))


def test_torch_engine_makes_no_state_before_the_first_sound_gradient():
    w = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = Madam([w])
    w.grad = torch.tensor([1.0, math.nan, 1.0], dtype=torch.float64)
    with pytest.warns(UserWarning, match="NaN"):
        optimizer.step()
    assert not optimizer.state
    w.grad = torch.ones(3, dtype=torch.float64)
    optimizer.step()
    assert optimizer.state[w]["step"] == 1


def test_nearest_rounding_below_half_a_rung_warns_once():
    w = nn.Parameter(LogTensor.from_float(torch.ones(3), bits=8))
    optimizer = Madam([w], lr=0.01, rounding="nearest")
    w.grad = torch.ones(3)
    with pytest.warns(UserWarning, match="lr=0.01 is below half a rung .base_precision=0.0217."):
        optimizer.step()
    optimizer.step()
    assert w.exponent.tolist() == [0, 0, 0]
    assert optimizer.state[w]["counts"].tolist() == [6, 6, 0]
    Madam([w], lr=0.011, rounding="nearest").step()
    Madam([w], lr=0.001).step()


def test_masked_weights_stay_zero():
    model = lognet.wrap(nn.Embedding(10, 4, padding_idx=3))
    optimizer = Madam(model.parameters(), lr=0.1)
    model.weight.grad = torch.ones(10, 4)
    optimizer.step()
    assert torch.equal(model.weight[3], torch.zeros(4))
    assert optimizer.state[model.weight]["counts"][0] == 36


def test_old_state_dicts_load():
    model = small_model()
    optimizer = Madam(model.parameters())
    train(model, optimizer, 2)
    old = copy.deepcopy(optimizer.state_dict())
    for group in old["param_groups"]:
        del group["seed"], group["momentum"]
    for state in old["state"].values():
        state["step"] = 2.0
    optimizer.load_state_dict(old)
    assert optimizer.param_groups[0]["seed"] == 0
    train(model, optimizer, 2)
    assert optimizer.state[next(model.parameters())]["step"] == 4


def test_gradients_released_as_they_arrive():
    model = small_model()
    optimizers = {p: Madam([p], lr=0.5, warmup=0) for p in model.parameters()}

    def step(p):
        optimizers[p].step()
        p.grad = None

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    before = [p.exponent for p in model.parameters()]
    model(torch.randn(8, 6)).square().sum().backward()
    for p, b in zip(model.parameters(), before, strict=True):
        assert p.grad is None
        assert not torch.equal(p.exponent, b)


def test_grad_scaler_skips_steps_with_overflow():
    model = small_model()
    optimizer, scaler = Madam(model.parameters()), torch.amp.GradScaler("cpu", init_scale=2.0)
    before = [p.exponent for p in model.parameters()]
    for bad in (True, False):
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(8, 6)).sum() * (math.inf if bad else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        moved = any(not torch.equal(p.exponent, b) for p, b in zip(model.parameters(), before, strict=True))
        assert moved == (not bad)


def test_random_bits_change_with_the_step():
    """By the fraction of a rung that a constant gradient moves: the same bits at every step move the same weights."""
    w = nn.Parameter(LogTensor.from_float(torch.ones(2000), scale=4.0))
    optimizer, moved = Madam([w], lr=0.5 * w.base_precision, affine=0.0, warmup=0), []
    w.grad = torch.ones(2000)
    for _ in range(3):
        before = w.exponent
        optimizer.step()
        moved.append(w.exponent != before)
    assert all(0.4 < m.float().mean() < 0.6 for m in moved)
    assert not torch.equal(moved[0], moved[1])
    assert 0.4 < (moved[1] == moved[2]).float().mean() < 0.6


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("bias_correction", [True, False])
def test_momentum_looks_ahead_and_averages_gradients_before_they_are_divided(bias_correction, maximize):
    w = nn.Parameter(torch.tensor([1.0, -1.0], dtype=torch.float64))
    optimizer = Madam(
        [w], lr=0.01, momentum=0.9, affine=0.0, warmup=0, bias_correction=bias_correction, maximize=maximize
    )
    average, square, expected = torch.zeros(2), torch.zeros(2), w.detach().clone()
    for t in range(1, 30):
        w.grad = normal(2, seed=t)
        optimizer.step()
        g = w.grad * (-1 if maximize else 1)
        average = 0.9 * average + 0.1 * g
        square = 0.99 * square + 0.01 * g**2
        corrections = (1 - 0.9**t, 1 - 0.99**t) if bias_correction else (1, 1)
        r = (0.9 * average / corrections[0] + 0.1 * g) / (square / corrections[1]).sqrt()
        expected = expected * torch.exp(-0.01 * expected.sign() * r.clamp(-3, 3))
        torch.testing.assert_close(w.detach(), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_may_change_its_dtype_between_steps(dtype):
    model = small_model(exclude="0.bias")
    optimizer = Madam(model.parameters(), lr=0.05, momentum=0.9)
    train(model, optimizer, 2)
    train(model.to(dtype), optimizer, 2)
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize(("first", "then"), [(True, False), (False, True)])
def test_state_carries_over_when_a_model_is_wrapped_or_unwrapped(first, then):
    make = lambda wrapped: lognet.wrap(nn.Linear(6, 3)) if wrapped else nn.Linear(6, 3)
    model, other = make(first), make(then)
    optimizer, resumed = Madam(model.parameters()), Madam(other.parameters())
    train(model, optimizer, 3)
    resumed.load_state_dict(optimizer.state_dict())
    train(other, resumed, 2)
    assert resumed.state[other.weight]["step"] == 5
