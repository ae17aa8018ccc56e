"""Sums of Kronecker products: what the PHM, word2ket and Shapeshifter layers compute with.

A matrix is held as `factors`, two or more tensors F_j of shapes (rank, rows_j, columns_j), and represents

    W = sum_r F_1[r] (x) F_2[r] (x) ...        of shape (prod rows_j, prod columns_j).

Index conventions: the first factor's index is the most significant one. For two factors A (rank, a, b) and
B (rank, c, d), entry W[(p, q), (s, t)] = sum_r A[r, p, s] B[r, q, t] with row p * c + q and column s * d + t, as in
`torch.kron`. "Order" is the number of factors, "rank" the number of terms.

Factors may be LogTensors; the graph then keeps their codes (`lognet.tensor.recompute.recomputed`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ...tensor.recompute import recomputed
from .cost import Shape, choose


def kronecker_sum(*factors: Tensor) -> Tensor:
    """The matrix that the factors represent.

    Args:
        factors: two or more of shape (rank, rows_j, columns_j), floats or LogTensors.

    Returns:
        Dense (prod rows_j, prod columns_j), contiguous, differentiable.

    Raises:
        ValueError: fewer than two factors, one that is not three-dimensional, or ranks that differ.

    Source: R2D2, equations 2.3 and 2.4; thesis, equation 3.4 and section 4.3.

    >>> a, b = torch.eye(2).unsqueeze(0), torch.tensor([[[1.0, 2.0]]])
    >>> kronecker_sum(a, b)
    tensor([[1., 2., 0., 0.],
            [0., 0., 1., 2.]])
    """
    check_factors(factors)
    return recomputed(_materialize, *factors)


def kronecker_linear(
    x: Tensor,
    factors: Sequence[Tensor],
    bias: Tensor | None = None,
    shape: tuple[int, int] | None = None,
    impl: str = "auto",
) -> Tensor:
    """``y = x W^T + bias`` with the W of `factors`.

    Args:
        x: (*, in_features).
        factors: two or more of shape (rank, rows_j, columns_j), floats or LogTensors.
        bias: (out_features,) or None.
        shape: (out_features, in_features): only the first so many rows and columns of W are used. Default: all.
        impl: "materialize" builds W first, "contract" applies the factors one by one, "auto" takes what the cost
            model (`lognet.nn.kronecker.cost`) finds cheaper for the number of inputs.

    Returns:
        (*, out_features).

    Raises:
        ValueError: sizes that do not fit, or an unknown `impl`.

    >>> a, b, x = torch.randn(3, 2, 4), torch.randn(3, 5, 6), torch.randn(7, 24)
    >>> torch.allclose(kronecker_linear(x, (a, b)), x @ kronecker_sum(a, b).T, atol=1e-4)
    True
    """
    check_factors(factors)
    whole = (math.prod([f.shape[1] for f in factors]), math.prod([f.shape[2] for f in factors]))
    rows, columns = whole if shape is None else shape
    if rows > whole[0] or columns > whole[1]:
        raise ValueError(f"shape={(rows, columns)} exceeds the factors' {whole}; use larger factors")
    check_input(x, bias, (rows, columns))
    inputs = x.shape[:-1].numel()
    sizes = _shape(factors)
    run = _multiply if choose(impl, sizes, inputs) == "materialize" else _contract
    return recomputed(partial(run, rows, columns), x, bias, *factors)


def kronecker_rows(
    index: Tensor, factors: Sequence[Tensor], columns: int | None = None, layer_norm: bool = False
) -> Tensor:
    """Rows of W, computed from the rows of the factors; W itself is never built.

    Row i has the mixed-radix digits of i, most significant first, as its rows in the factors.

    Args:
        index: integers in 0 .. prod rows_j - 1, any shape.
        factors: two or more of shape (rank, rows_j, columns_j), floats or LogTensors.
        columns: return the first so many columns. Default: all, prod columns_j.
        layer_norm: normalise the nodes of the product tree (`tensor_product_tree`).

    Returns:
        (*index.shape, columns).

    Raises:
        TypeError, ValueError: factors of unfit number, shape or dtype.

    Source: thesis, section 3.4.2 (lazy rows of a Kronecker product).

    >>> a, b = torch.randn(2, 3, 4), torch.randn(2, 5, 6)
    >>> torch.allclose(kronecker_rows(torch.tensor([7]), (a, b)), kronecker_sum(a, b)[[7]], atol=1e-5)
    True
    """
    check_factors(factors)
    columns = math.prod([f.shape[2] for f in factors]) if columns is None else columns
    digits = mixed_radix(index.reshape(-1), [f.shape[1] for f in factors])
    rows = recomputed(partial(_rows, digits, columns, layer_norm), *factors)
    return rows.reshape(*index.shape, columns)


def mixed_radix(index: Tensor, radices: Sequence[int]) -> list[Tensor]:
    """The digits of each index, most significant first.

    >>> [d.tolist() for d in mixed_radix(torch.tensor([0, 7, 29]), [3, 2, 5])]
    [[0, 0, 2], [0, 1, 1], [0, 2, 4]]
    """
    digits = []
    for radix in reversed(radices[1:]):
        digits.append(index % radix)
        index = index.div(radix, rounding_mode="floor")
    return [index, *reversed(digits)]


def tensor_product_tree(leaves: Sequence[Tensor], layer_norm: bool = False) -> Tensor:
    """The tensor product of the leaves' last dimensions, term by term, along a balanced binary tree, then summed.

    Args:
        leaves: each (*, rank, q_j); the first is the most significant.
        layer_norm: normalise every node of the tree (mean 0, variance 1 over its last dimension), without affine
            parameters. The result is then no longer multilinear in the leaves.

    Returns:
        (*, prod q_j): sum over the rank.

    Source: thesis, section 3.3.3 and figure 3.

    >>> tensor_product_tree([torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])])
    tensor([ 3.,  5.,  6., 10.])
    """
    while len(leaves) > 2 or (layer_norm and len(leaves) == 2):
        pairs = zip(leaves[::2], leaves[1::2], strict=False)
        nodes = [(left.unsqueeze(-1) * right.unsqueeze(-2)).flatten(-2) for left, right in pairs]
        if layer_norm:
            nodes = [F.layer_norm(node, node.shape[-1:]) for node in nodes]
        leaves = nodes + list(leaves[len(nodes) * 2 :])
    if len(leaves) == 1:
        return leaves[0].sum(-2)
    return torch.matmul(leaves[0].mT, leaves[1]).flatten(-2)


def nearest_kronecker_sum(matrix: Tensor, shape: tuple[int, int, int, int], rank: int) -> tuple[Tensor, Tensor]:
    """The sum of `rank` Kronecker products nearest to a matrix in the Frobenius norm.

    The matrix is rearranged so that every A_r (x) B_r becomes an outer product, (ab, cd); its truncated SVD is
    nearest by Eckart and Young. Every term's norm is shared evenly by its two factors. Exact when `rank` reaches the
    rank of the rearranged matrix, at most min(ab, cd).

    Args:
        matrix: (rows, columns); zeros are added where the factors reach beyond it.
        shape: (a, b, c, d), the sides of A and B: ac >= rows, bd >= columns.
        rank: number of terms; those beyond min(ab, cd) are zero.

    Returns:
        A (rank, a, b) and B (rank, c, d), in the matrix's dtype; computed in float64.

    Raises:
        ValueError: the factors are too small for the matrix.

    Source: Van Loan and Pitsianis, "Approximation with Kronecker products" (1993).

    >>> w = torch.randn(6, 6)
    >>> torch.allclose(kronecker_sum(*nearest_kronecker_sum(w, (2, 3, 3, 2), rank=6)), w, atol=1e-5)
    True
    """
    a, b, c, d = shape
    rows, columns = matrix.shape
    if a * c < rows or b * d < columns:
        raise ValueError(f"shape={shape} reaches {a * c} x {b * d}, less than the matrix's {rows} x {columns}")
    padded = F.pad(matrix.detach().double(), (0, b * d - columns, 0, a * c - rows))
    rearranged = padded.view(a, c, b, d).permute(0, 2, 1, 3).reshape(a * b, c * d)
    left, right = truncated_svd(rearranged, rank)
    return left.T.reshape(rank, a, b).to(matrix.dtype), right.reshape(rank, c, d).to(matrix.dtype)


def truncated_svd(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """U (rows, rank) and V (rank, columns) whose product is nearest to the matrix; singular values shared evenly.

    >>> u, v = truncated_svd(torch.ones(2, 3), rank=1)
    >>> torch.allclose(u @ v, torch.ones(2, 3))
    True
    """
    if min(matrix.shape) > 512:
        return _projected(matrix, rank)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    missing = max(0, rank - len(s))
    root = s[:rank].sqrt()
    return F.pad(u[:, :rank] * root, (0, missing)), F.pad(root.unsqueeze(-1) * v[:rank], (0, 0, 0, missing))


def _projected(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """`truncated_svd` by the eigenvectors of M^T M, which is many times faster for large matrices.

    In float64, M V V^T is as near to M as the SVD's product, up to singular values below 1e-8 of the largest.
    """
    if matrix.shape[0] < matrix.shape[1]:
        u, v = _projected(matrix.T, rank)
        return v.T, u.T
    rank_there = min(rank, matrix.shape[1])
    v = torch.linalg.eigh(matrix.T @ matrix).eigenvectors.flip(-1)[:, :rank_there]
    u = matrix @ v
    root = u.norm(dim=0).sqrt()
    u, v = torch.where(root > 0, u / root, 0.0), v * root
    return F.pad(u, (0, rank - rank_there)), F.pad(v.T, (0, 0, 0, rank - rank_there))


def multiply_adds(factors: Sequence[Tensor], inputs: int, impl: str = "auto") -> int:
    """Multiply-adds of `kronecker_linear` with these factors and so many inputs, in the form that it takes.

    >>> a = b = torch.ones(1, 32, 32)  # 1024 x 1024: contracted
    >>> multiply_adds((a, b), inputs=1)
    65536
    """
    sizes = _shape(factors)
    if choose(impl, sizes, inputs) == "contract":
        return inputs * min(sizes.b_first, sizes.a_first)[0]
    return sizes.build_macs + inputs * sizes.entries


def check_input(x: Tensor, bias: Tensor | None, shape: tuple[int, int]) -> None:
    """Raise ValueError unless an input and a bias fit a matrix of the shape (out_features, in_features)."""
    rows, columns = shape
    if x.dim() == 0 or x.shape[-1] != columns:
        raise ValueError(f"x must have in_features={columns} as its last size, got shape {tuple(x.shape)}")
    if bias is not None and tuple(bias.shape) != (rows,):
        raise ValueError(f"bias must have shape {(rows,)}, out_features, got {tuple(bias.shape)}")


def plus_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """`y + bias` in the dtype of y, which under autocast is not the bias's."""
    return y if bias is None else y + bias.to(y.dtype)


def check_factors(factors: Sequence[Tensor]) -> None:
    """Raise ValueError unless there are two or more (rank, rows, columns) factors of one rank."""
    shapes = [tuple(f.shape) for f in factors]
    if len(shapes) < 2 or any(len(s) != 3 for s in shapes) or len({s[0] for s in shapes}) != 1:
        raise ValueError(f"factors must be two or more of shape (rank, rows, columns) with one rank, got {shapes}")


# The functions below take dense factors. They first multiply more than two, term by term, into two of about equal size.


def _shape(factors: Sequence[Tensor]) -> Shape:
    half = len(factors) // 2
    product = lambda part: (math.prod([f.shape[1] for f in part]), math.prod([f.shape[2] for f in part]))
    return Shape(factors[0].shape[0], *product(factors[:half]), *product(factors[half:]))


def _two(factors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    half = len(factors) // 2
    return _termwise(factors[:half]), _termwise(factors[half:])


def _termwise(factors: Sequence[Tensor]) -> Tensor:
    """(rank, prod rows, prod columns): the Kronecker product of each term by itself."""
    if len(factors) == 1:
        return factors[0]
    a, b = _two(factors)
    product = a[:, :, None, :, None] * b[:, None, :, None, :]
    return product.reshape(a.shape[0], a.shape[1] * b.shape[1], a.shape[2] * b.shape[2])


def _materialize(*factors: Tensor) -> Tensor:
    """One batched product, for each row q of B all of A with it, (ab, rank)(rank, d), then one copy into order."""
    a, b = _two(factors)
    left = a.permute(1, 2, 0).reshape(1, -1, a.shape[0]).expand(b.shape[1], -1, -1)
    blocks = torch.bmm(left, b.transpose(0, 1)).view(b.shape[1], a.shape[1], a.shape[2], b.shape[2])
    return blocks.transpose(0, 1).reshape(a.shape[1] * b.shape[1], a.shape[2] * b.shape[2])


def _multiply(rows: int, columns: int, x: Tensor, bias: Tensor | None, *factors: Tensor) -> Tensor:
    return F.linear(x, _materialize(*factors)[:rows, :columns], bias)


def _contract(rows: int, columns: int, x: Tensor, bias: Tensor | None, *factors: Tensor) -> Tensor:
    """Two products without any reordering of activations in between; the cheaper factor goes first."""
    a, b = _two(factors)
    rank, p, s = a.shape
    _, q, t = b.shape
    n = x.shape[:-1].numel()
    flat = F.pad(x.reshape(n, columns), (0, s * t - columns)) if s * t > columns else x.reshape(n, columns)
    sizes = Shape(rank, p, s, q, t)
    if sizes.b_first <= sizes.a_first:
        between = F.linear(flat.view(n * s, t), b.reshape(rank * q, t)).view(n, s * rank, q)
        y = torch.matmul(a.permute(1, 2, 0).reshape(p, s * rank), between).reshape(n, p * q)
    else:
        between = torch.matmul(a.transpose(0, 1).reshape(p * rank, s), flat.view(n, s, t)).reshape(n * p, rank * t)
        y = F.linear(between, b.transpose(0, 1).reshape(q, rank * t)).view(n, p * q)
    y = y[:, :rows] if rows < p * q else y
    return plus_bias(y, bias).reshape(*x.shape[:-1], rows)


def prepared_linear(
    groups: Sequence[Sequence[Tensor]], shape: tuple[int, int], impl: str, inputs: int
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """A function (x, bias) -> y for several matrices side by side, which will multiply `inputs` vectors in all.

    `groups` are the dense factors of each matrix, `shape` is its (out_features, in_features). Recurrent layers call it
    inside `recomputed`, so that the matrices are built once for all steps, or never.
    """
    rows, columns = shape
    if choose(impl, _shape(groups[0]), inputs) == "materialize":
        weight = torch.cat([_materialize(*factors)[:rows, :columns] for factors in groups])
        return lambda x, bias: F.linear(x, weight, bias)

    def contract(x: Tensor, bias: Tensor | None) -> Tensor:
        y = torch.cat([_contract(rows, columns, x, None, *factors) for factors in groups], dim=-1)
        return plus_bias(y, bias)

    return contract


def _rows(digits: list[Tensor], columns: int, layer_norm: bool, *factors: Tensor) -> Tensor:
    rest = math.prod([f.shape[2] for f in factors[1:]])
    # the columns of the first factor that reach the first `columns` of the product; a layer norm needs all of them
    used = factors[0].shape[2] if layer_norm else -(-columns // rest)
    tables = [factors[0][..., :used], *factors[1:]]
    leaves = [_gather(table, digit) for table, digit in zip(tables, digits, strict=True)]
    return tensor_product_tree(leaves, layer_norm)[:, :columns]


def _gather(factor: Tensor, digit: Tensor) -> Tensor:
    """(count, rank, columns): row `digit` of every term."""
    rank, rows, columns = factor.shape
    return F.embedding(digit, factor.transpose(0, 1).reshape(rows, rank * columns)).view(-1, rank, columns)
