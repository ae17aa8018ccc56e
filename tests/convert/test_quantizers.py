"""Quantizers attached to layers: which layers, what exactly is rounded, and that nothing loses them."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from oracles.compiler import outcomes
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import lognet
from lognet.convert.quantizers import find_layers, quantizers_of
from lognet.nn import (
    PHMLSTM,
    AlgebraBatchNorm1d,
    AlgebraConv1d,
    AlgebraEmbedding,
    AlgebraGRU,
    AlgebraLinear,
    AlgebraMultiheadAttention,
    KroneckerEmbedding,
    KroneckerGRU,
    KroneckerLinear,
    LowRankLinear,
    PHMConv1d,
    PHMLinear,
    TiedOutput,
    Word2KetXSEmbedding,
)
from lognet.optim import Madam
from lognet.quant import LogQuantizer

ROOT = Path(__file__).resolve().parents[2]
A, G = LogQuantizer(4), LogQuantizer(3, rounding="stochastic", seed=5)
TOKENS = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 6]])


class Net(nn.Module):
    """One of most things: tied embeddings, convolution, norm, attention, recurrence, a bare parameter, a list of them."""

    def __init__(self, weight_norm=True):
        super().__init__()
        self.embedding = nn.Embedding(20, 8, padding_idx=0)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        if weight_norm:
            self.conv = nn.utils.parametrizations.weight_norm(self.conv)
        self.norm = nn.BatchNorm1d(8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.rnn = nn.GRU(8, 8, batch_first=True)
        self.gain = nn.Parameter(torch.ones(()))
        self.shift = Shift(8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        h = self.norm(self.conv(self.embedding(x).mT)).mT
        return self.head(self.rnn(self.shift(self.block(h)))[0] * self.gain)


class Shift(nn.Module):
    """A layer of one's own, whose parameters are in a list."""

    def __init__(self, width):
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))])

    def forward(self, x):
        return x * self.parts[0] + self.parts[1]


LAYERS = [
    *("embedding", "conv", "norm", "block.self_attn", "block.linear1", "block.linear2", "block.norm1", "block.norm2"),
    *("rnn", "shift", "head"),
]


def test_the_layers_of_a_model():
    model = lognet.wrap(Net(), activation=A, gradient=G)
    assert list(quantizers_of(model)) == LAYERS
    assert all((q.activation, q.gradient) == (A, G) for q in quantizers_of(model).values())
    names = {id(m): name for name, m in model.named_modules()}
    assert [names[id(layer)] for layer in find_layers(model)] == LAYERS
    model(TOKENS).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_what_is_not_wrapped_is_not_quantized():
    model = lognet.wrap(Net(), exclude=[nn.BatchNorm1d, "block", "head"], activation=A)
    assert list(quantizers_of(model)) == ["conv", "rnn", "shift"]  # the embedding is tied to the head
    lognet.wrap(model, include="block.linear1", activation=8)
    assert list(quantizers_of(model)) == ["conv", "block.linear1", "rnn", "shift"]
    model = lognet.wrap(Net(), include=["gain"], activation=A)  # of no layer: a container's own
    assert quantizers_of(model) == {}


def plain_and_quantized(layer, activation, gradient):
    torch.manual_seed(1)
    plain = lognet.wrap(layer, bits=8)
    quantized = lognet.set_quantizers(copy.deepcopy(plain), activation, gradient)
    return plain, quantized


def tensors(output):
    if isinstance(output, torch.Tensor):
        return [output]
    return [t for part in output if part is not None for t in tensors(part) if t.is_floating_point()]


def compare(layer, inputs, quantized_inputs, quantize_output=False):
    """The layer of rounded inputs and of rounded gradients, with the quantizers outside and attached."""
    plain, quantized = plain_and_quantized(layer, A, G)
    outs = [tensors(plain(*quantized_inputs)), tensors(quantized(*inputs))]
    expected = [A(t) for t in outs[0]] if quantize_output else outs[0]
    for a, b in zip(expected, outs[1], strict=True):
        assert torch.equal(a, b)
    upstream = [torch.randn(t.shape, dtype=t.dtype) for t in outs[0]]
    torch.autograd.backward(expected, [G(g) for g in upstream])
    torch.autograd.backward(outs[1], upstream)
    for (name, p), q in zip(plain.named_parameters(), quantized.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-6, msg=name)


FLOATING = [
    (lambda: nn.Linear(8, 6), (5, 8)),
    (lambda: nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 5)),
    (lambda: nn.ConvTranspose1d(4, 6, 3), (2, 4, 5)),
    (lambda: nn.LayerNorm(8), (5, 8)),
    (lambda: nn.BatchNorm1d(8), (5, 8)),
    (lambda: nn.LSTM(8, 4, num_layers=2, bidirectional=True), (3, 2, 8)),
    (lambda: nn.GRU(8, 4), (3, 2, 8)),
    (lambda: nn.LSTMCell(8, 4), (3, 8)),
    (lambda: AlgebraLinear(8, 12, algebra="H"), (5, 8)),
    (lambda: AlgebraConv1d(8, 8, 3, algebra="C"), (2, 8, 5)),
    (lambda: AlgebraBatchNorm1d(8, algebra="H"), (5, 8)),
    (lambda: AlgebraGRU(8, 8, algebra="C"), (3, 2, 8)),
    (lambda: PHMLinear(8, 12, n=4), (5, 8)),
    (lambda: PHMConv1d(8, 8, 3, n=2), (2, 8, 5)),
    (lambda: PHMLSTM(8, 8, n=2), (3, 2, 8)),
    (lambda: KroneckerLinear(8, 12, rank=2), (5, 8)),
    (lambda: KroneckerGRU(8, 8, rank=1), (3, 2, 8)),
    (lambda: LowRankLinear(8, 12, rank=2), (5, 8)),
    (lambda: TiedOutput(KroneckerEmbedding(20, 8, rank=2)), (5, 8)),
]


@pytest.mark.parametrize(("make", "shape"), FLOATING, ids=[type(make()).__name__ for make, _ in FLOATING])
def test_inputs_and_gradients_of_outputs_are_rounded(make, shape):
    x = torch.randn(shape)
    compare(make(), [x], [A(x)])
    layer = lognet.wrap(make(), activation=A, gradient=G)
    assert list(quantizers_of(layer)) == [""]
    x.requires_grad_()
    (first,) = torch.autograd.grad(tensors(layer(x))[0].square().sum(), x)
    assert first.abs().sum() > 0  # straight through


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Embedding(20, 8),
        lambda: nn.EmbeddingBag(20, 8),
        lambda: AlgebraEmbedding(20, 8, algebra="H"),
        lambda: KroneckerEmbedding(20, 8, rank=2),
        lambda: Word2KetXSEmbedding(20, 8, order=2, rank=2),
    ],
)
def test_an_embedding_has_its_output_rounded(make):
    compare(make(), [TOKENS], [TOKENS], quantize_output=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_keeps_its_masks_and_knows_itself(dtype):
    """A mask to add holds numbers that no format has, and one tensor thrice stays one, as the layer asks for that."""
    x, y = torch.randn(2, 3, 8, dtype=dtype), torch.randn(2, 3, 8, dtype=dtype)
    mask = torch.randn(3, 3, dtype=dtype) * 0.1
    for inputs in ([x, x, x, None, True, mask], [x, y, y, None, True, mask]):
        layer = nn.MultiheadAttention(8, 2, batch_first=True).to(dtype)
        rounded = {id(t): A(t) for t in inputs[:3]}
        compare(layer, inputs, [rounded.get(id(t), t) for t in inputs])
    seen = []
    layer = lognet.wrap(nn.MultiheadAttention(8, 2, batch_first=True), activation=A)
    layer.register_forward_pre_hook(lambda module, args, kwargs: seen.append((args, kwargs)), with_kwargs=True)
    layer(x.float(), x.float(), value=x.float(), attn_mask=mask.float())
    assert torch.equal(seen[0][1]["attn_mask"], mask.float())
    x = x.float()
    layer(x, key=x, value=x)
    (query,), kwargs = seen[1]
    assert query is kwargs["key"] is kwargs["value"]


def test_attention_of_projections_is_its_projections():
    model = lognet.wrap(AlgebraMultiheadAttention(8, 2, algebra="C", add_bias_kv=True), activation=A)
    assert list(quantizers_of(model)) == ["q_proj", "k_proj", "v_proj", "out_proj"]
    model = lognet.compress(nn.TransformerEncoderLayer(8, 2, 16), lognet.PHM(2), min_parameters=0)[0]
    model = lognet.wrap(model, activation=A)
    attention = [name for name in quantizers_of(model) if name.startswith("self_attn.")]
    assert sorted(attention) == [f"self_attn.{part}_proj" for part in ("k", "out", "q", "v")]


def test_packed_sequences():
    xs = [torch.randn(3, 8), torch.randn(2, 8)]
    layer = lognet.wrap(nn.GRU(8, 4), activation=A)
    out, _ = layer(pack_sequence(xs))
    plain = lognet.set_quantizers(copy.deepcopy(layer))
    packed = pack_sequence(xs)
    expected, _ = plain(packed._replace(data=A(packed.data)))
    assert torch.equal(out.data, expected.data)


def test_copies_pickles_and_state_dicts():
    model = lognet.wrap(Net(weight_norm=False), activation=A, gradient=G).eval()  # which torch refuses to pickle
    keys = list(lognet.wrap(Net(weight_norm=False)).state_dict())
    assert list(model.state_dict()) == keys
    expected = model(TOKENS)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert quantizers_of(other).keys() == set(LAYERS)
        assert torch.equal(other(TOKENS), expected)
        lognet.set_quantizers(other)  # takes off those of the copy, not of the model
        assert quantizers_of(other) == {}
        assert not torch.equal(other(TOKENS), expected)
        assert torch.equal(model(TOKENS), expected)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in other.modules())
    lognet.set_quantizers(model, A, G)  # again: in place of, not on top of, what is there
    assert all(len(m._forward_pre_hooks) + len(m._forward_hooks) <= 2 for m in model.modules())
    assert torch.equal(model(TOKENS), expected)


def test_requantize_keeps_them_and_unwrap_takes_them_off():
    model = lognet.wrap(Net(), activation=A, gradient=G)
    assert list(quantizers_of(lognet.requantize(model, bits=10))) == LAYERS
    lognet.unwrap(model)
    assert quantizers_of(model) == {}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_files_remember_them(tmp_path):
    path = tmp_path / "model.safetensors"
    model = lognet.wrap(Net(), activation=A, gradient=G)
    lognet.save(model, path)
    other = lognet.load(lognet.wrap(Net(), activation=A, gradient=G), path)
    assert torch.equal(model.eval()(TOKENS), other.eval()(TOKENS))
    for wrong in (
        lognet.wrap(Net()),
        lognet.wrap(Net(), activation=A),
        lognet.wrap(Net(), activation=5, gradient=G),
        lognet.set_quantizers(lognet.wrap(Net(), exclude="rnn"), A, G),
    ):
        before = copy.deepcopy(wrong.state_dict())
        with pytest.raises(ValueError, match="the (activation|gradient) quantizer of .* is .* in the file and .*|rnn"):
            lognet.load(wrong, path)
        assert all(torch.equal(a, b) for a, b in zip(before.values(), wrong.state_dict().values(), strict=True))
    lognet.save(lognet.wrap(Net()), path)
    with pytest.raises(ValueError, match="activation quantizer of embedding is None in the file and {'format': 'log'"):
        lognet.load(model, path)


def test_summary_shows_them():
    model = lognet.wrap(Net(), activation=A, gradient="log6")
    rows = {layer.name: (layer.activation, layer.gradient) for layer in lognet.summary(model).layers}
    assert rows["block.self_attn.out_proj.weight"] == rows["rnn.weight_ih_l0"] == ("log4", "log6")
    assert rows["gain"] == (None, None)
    assert "activation  gradient" in str(lognet.summary(model))
    assert "log4      log6" in str(lognet.summary(model))
    assert "gradient" not in str(lognet.summary(lognet.wrap(Net())))


def test_bits_and_names():
    model = lognet.wrap(nn.Linear(4, 4), activation=8, gradient="log6")
    own = quantizers_of(model)[""]
    assert own.activation == LogQuantizer(8)
    assert own.gradient == LogQuantizer(6, rounding="stochastic")


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"activation": 1}, ValueError, "activation: bits must be from 2 to 16, got 1"),
        ({"gradient": "fixd8"}, ValueError, "gradient: unknown quantizer 'fixd8'"),
        ({"activation": 8.0}, TypeError, "activation: a quantizer is one of lognet.quant, bits or a name, got 8.0"),
        ({"gradient": nn.Identity()}, TypeError, "gradient: a quantizer is one of"),
    ],
)
def test_errors_change_nothing(arguments, error, said):
    model = Net()
    with pytest.raises(error, match=said):
        lognet.wrap(model, **arguments)
    assert not any(isinstance(p, lognet.LogTensor) for p in model.parameters())
    with pytest.raises(ValueError, match="Net has no LogTensor parameters; wrap it first"):
        lognet.set_quantizers(model, 8)


def test_recomputed_passes_draw_the_same_bits():
    from torch.utils.checkpoint import checkpoint

    model = lognet.wrap(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)))
    lognet.set_quantizers(model, LogQuantizer(3, rounding="stochastic"), G)
    x, grads = torch.randn(4, 6), []
    for forward in (model, lambda x: checkpoint(model, x, use_reentrant=False)):
        model.zero_grad()
        forward(x).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_functional_calls_and_gradients_of_each_sample():
    from torch.func import functional_call, grad, vmap

    model = lognet.wrap(nn.Linear(4, 2), activation=A, gradient=LogQuantizer(4))
    parameters, x = dict(model.named_parameters()), torch.randn(3, 4)
    loss = lambda p, x: functional_call(model, p, (x,)).square().sum()
    whole, each = grad(loss)(parameters, x), vmap(grad(loss), (None, 0))(parameters, x)
    for name in parameters:
        torch.testing.assert_close(each[name].sum(0), whole[name])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler makes an autograd.Function of its own
def test_a_model_compiles_into_one_graph_for_all_steps():
    torch._dynamo.reset()
    model = lognet.wrap(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), activation=8, gradient=8)
    compiled, optimizer = torch.compile(model, fullgraph=True, backend="aot_eager"), Madam(model.parameters())
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            results = outcomes(model, (compiled, model), torch.randn(5, 6))
            # A graph may sum in another order. The seeds are fixed, and no number lies within its last bits of the
            # middle between two rungs, where this would move it by a whole rung.
            torch.testing.assert_close(*results)
            optimizer.step()


def trained(activation, gradient, bits=8, steps=100):
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.LayerNorm(32), nn.Linear(32, 2))
    if bits is not None:
        lognet.wrap(model, bits=bits, activation=activation, gradient=gradient)
    optimizer, losses = Madam(model.parameters()), []
    for step in range(steps):
        batch = slice(step % 4 * 64, step % 4 * 64 + 64)
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[:10]) / 10, sum(losses[-10:]) / 10


def test_madam_trains_with_eight_bits_everywhere_as_in_full_precision():
    first, full = trained(None, None, bits=None)
    _, eight = trained(8, 8)
    assert first > 0.6
    assert full < 0.25
    assert abs(eight - full) < 0.1
    assert trained(2, 2)[1] > full + 0.1  # what the tolerance is worth


SPAWNED = """
import copy, sys, torch, warnings
import torch.distributed as dist, torch.multiprocessing as mp
from torch import nn
import lognet
from lognet.convert.quantizers import quantizers_of
from lognet.optim import Madam

def work(rank, model, folder):
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    assert len(quantizers_of(model)) == 3, quantizers_of(model)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(copy.deepcopy(model))  # spawned workers share the memory of what they are given
    optimizer = Madam(model.parameters())
    x = torch.randn(2, 3, 8, 5, generator=torch.Generator().manual_seed(0))
    for step in range(3):
        optimizer.zero_grad()
        model(x[rank, step]).square().mean().backward()
        optimizer.step()
    codes = torch.cat([p.exponent.flatten() for p in model.parameters()]).long()
    both = [torch.empty_like(codes) for _ in range(2)]
    dist.all_gather(both, codes)
    assert torch.equal(*both)
    assert len(quantizers_of(model)) == 3
    dist.destroy_process_group()

if __name__ == "__main__":
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    lognet.wrap(model, activation=8, gradient=8)
    mp.spawn(work, (model, sys.argv[1]), nprocs=2)
    print("done")
"""


@pytest.mark.slow
@pytest.mark.timeout(600)  # three processes import torch, on a busy machine
def test_spawned_workers_train_in_parallel(tmp_path):
    (tmp_path / "spawned.py").write_text(SPAWNED)
    command = [sys.executable, str(tmp_path / "spawned.py"), str(tmp_path)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert done.stdout == "done\n", done.stderr
