"""What stacked sums of Kronecker products can represent and stacked low rank cannot, in numbers.

Run from a checkout: ``python examples/kronecker_expressiveness.py``. It shows the three claims of section 4.3.1 of the
Shapeshifter thesis on layers of lognet.nn, in float64:

1. one Kronecker term of two orthogonal matrices is orthogonal: full rank from 2 sqrt(n) x sqrt(n) numbers;
2. a stack of low-rank layers stays at its rank, whatever its depth, while stacked Kronecker sums have full rank;
3. theorem 2: any Givens rotation is a product of three sums of two Kronecker terms, and so any orthogonal matrix is
   a product of such sums.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from lognet.nn import KroneckerLinear, LowRankLinear, kronecker_sum, nearest_kronecker_sum


def random_orthogonal(size: int) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, dtype=torch.float64)).Q


def kronecker_layer(*terms: tuple[Tensor, Tensor]) -> KroneckerLinear:
    """A layer without bias whose matrix is the sum of A (x) B over the terms; all factors are m x m."""
    m = terms[0][0].shape[0]
    layer = KroneckerLinear(m * m, m * m, rank=len(terms), bias=False, sizes="padded", dtype=torch.float64)
    with torch.no_grad():
        layer.A.copy_(torch.stack([a for a, _ in terms]))
        layer.B.copy_(torch.stack([b for _, b in terms]))
    return layer


def one_term_is_orthogonal(m: int) -> tuple[int, int, float]:
    """Parameters, rank, and the distance of W W^T from the identity, of one term with orthogonal factors."""
    layer = kronecker_layer((random_orthogonal(m), random_orthogonal(m)))
    w = layer.weight.detach()
    distance = float((w @ w.T - torch.eye(m * m, dtype=torch.float64)).abs().max())
    return sum(p.numel() for p in layer.parameters()), int(torch.linalg.matrix_rank(w)), distance


def ranks_of_stacks(m: int, depths: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """For each depth, the rank of a stack of rank-1 layers and of single Kronecker terms, of equally many parameters.

    The low-rank layers are random, which gives them their largest rank. The Kronecker terms are orthogonal.
    """
    found = []
    n, identity = m * m, torch.eye(m * m, dtype=torch.float64)
    for depth in depths:
        low = nn.Sequential(*(LowRankLinear(n, n, 1, bias=False, dtype=torch.float64) for _ in range(depth)))
        orthogonal = [(random_orthogonal(m), random_orthogonal(m)) for _ in range(depth)]
        kronecker = nn.Sequential(*(kronecker_layer(term) for term in orthogonal))
        assert sum(p.numel() for p in low.parameters()) == sum(p.numel() for p in kronecker.parameters())
        ranks = [int(torch.linalg.matrix_rank(stack(identity).detach(), rtol=1e-12)) for stack in (low, kronecker)]
        found.append((depth, ranks[0], ranks[1]))
    return found


def givens(n: int, k: int, q: int, angle: float) -> Tensor:
    """The rotation by `angle` in the plane of axes k and q."""
    g = torch.eye(n, dtype=torch.float64)
    g[k, k] = g[q, q] = math.cos(angle)
    g[k, q], g[q, k] = -math.sin(angle), math.sin(angle)
    return g


def givens_layers(m: int, k: int, q: int, angle: float) -> nn.Sequential:
    """Layers of two Kronecker terms each, one or three of them, whose product is `givens(m * m, k, q, angle)`.

    Theorem 2's construction. With k = kappa m + lambda and q = pi m + rho (from 0), axes that share kappa = pi or
    lambda = rho need one layer. Otherwise V = P (x) 1_lambda + I (x) (I - 1_lambda) maps block kappa to block pi
    for the second index lambda alone. There the first case applies, and V^T maps it back.
    """
    kappa, lam = divmod(k, m)
    pi, rho = divmod(q, m)
    eye = torch.eye(m, dtype=torch.float64)
    only = lambda index: torch.diag(eye[index])
    if lam == rho:
        return nn.Sequential(kronecker_layer((givens(m, kappa, pi, angle), only(lam)), (eye, eye - only(lam))))
    rotate = kronecker_layer((only(pi), givens(m, lam, rho, angle)), (eye - only(pi), eye))
    if kappa == pi:
        return nn.Sequential(rotate)
    swap = eye.clone()
    swap[[kappa, pi]] = eye[[pi, kappa]]
    there = kronecker_layer((swap, only(lam)), (eye, eye - only(lam)))
    back = kronecker_layer((swap.T, only(lam)), (eye, eye - only(lam)))
    return nn.Sequential(there, rotate, back)


def matrix_of(layers: nn.Module, n: int) -> Tensor:
    """The matrix W of y = W x."""
    return layers(torch.eye(n, dtype=torch.float64)).detach().T


def every_givens_rotation(m: int, angle: float) -> tuple[int, int, float]:
    """Over all planes: how many need one layer, how many three, and the largest error of any entry."""
    lengths, worst = [], 0.0
    for k, q in itertools.combinations(range(m * m), 2):
        layers = givens_layers(m, k, q, angle)
        lengths.append(len(layers))
        worst = max(worst, float((matrix_of(layers, m * m) - givens(m * m, k, q, angle)).abs().max()))
    return lengths.count(1), lengths.count(3), worst


def orthogonal_from_layers(m: int) -> tuple[int, float]:
    """A random rotation as a product of such layers: the number of layers, and the largest error of any entry."""
    n = m * m
    target = random_orthogonal(n)
    target[:, 0] *= torch.linalg.det(target).sign()  # make it a rotation, a product of Givens rotations
    rest, layers = target.clone(), []
    for column in range(n):
        for row in range(n - 1, column, -1):
            angle = math.atan2(float(rest[row, column]), float(rest[column, column]))
            rest = givens(n, column, row, -angle) @ rest
            layers = [*givens_layers(m, column, row, angle), *layers]
    return len(layers), float((matrix_of(nn.Sequential(*layers), n) - target).abs().max())


def main() -> None:
    torch.manual_seed(0)
    parameters, rank, distance = one_term_is_orthogonal(8)
    print(f"1. One term, 64 x 64 from {parameters} numbers: rank {rank}, |W W^T - I| at most {distance:.1e}.")
    print("2. Stacks of equally many parameters, 64 x 64:")
    for depth, low, kronecker in ranks_of_stacks(8, (1, 2, 4, 8)):
        print(f"   {depth} deep: low rank has rank {low}, Kronecker sums have rank {kronecker}.")
    one, three, worst = every_givens_rotation(4, 0.7)
    print(
        f"3. Givens rotations of 16 axes: {one} planes take one layer, {three} take three; error at most {worst:.1e}."
    )
    g = givens(16, 1, 6, 0.7)
    error = float((kronecker_sum(*nearest_kronecker_sum(g, (4, 4, 4, 4), 2)) - g).norm())
    print(f"   (One layer of two terms misses the plane of axes 1 and 6 by at least {error:.2f}, so depth is needed.)")
    count, worst = orthogonal_from_layers(3)
    print(f"   A random 9 x 9 rotation is a product of {count} layers of two terms: error at most {worst:.1e}.")


if __name__ == "__main__":
    main()
