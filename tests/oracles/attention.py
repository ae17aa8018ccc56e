"""torch's attention in place of lognet's."""

import torch
from torch import nn

from lognet.tensor.floats import dense


def matrix(projection):
    return projection.dense_weight() if hasattr(projection, "algebra") else projection.weight


def dense_twin(ours):
    """torch's attention with the same options, and a function: our dense weights under its names, connected to our parameters."""
    bias, added = ours.out_proj.bias is not None, ours.bias_k is not None
    names = ("batch_first", "add_zero_attn", "kdim", "vdim", "dropout")
    options = {name: getattr(ours, name) for name in names}
    twin = nn.MultiheadAttention(ours.embed_dim, ours.num_heads, bias=bias, add_bias_kv=added, **options).double()
    twin.train(ours.training)

    def weights():
        parts = [ours.qkv_proj] if getattr(ours, "fused", False) else [ours.q_proj, ours.k_proj, ours.v_proj]
        matrices = [matrix(p) for p in parts]
        found = {"out_proj.weight": matrix(ours.out_proj)}
        if twin.in_proj_weight is None:
            found |= {f"{n}_proj_weight": w for n, w in zip("qkv", matrices, strict=True)}
        else:
            found["in_proj_weight"] = torch.cat(matrices)
        if bias:
            biases = [dense(p.bias) for p in (*parts, ours.out_proj)]
            found |= {"in_proj_bias": torch.cat(biases[:-1]), "out_proj.bias": biases[-1]}
        return found | ({"bias_k": dense(ours.bias_k), "bias_v": dense(ours.bias_v)} if added else {})

    return twin, weights
