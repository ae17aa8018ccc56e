"""Products over algebras from their definitions, in loops and with Python's complex type."""

import torch

ALGEBRAS = ("R", "C", "H", "M2R", "M3R", "M4R", "M2C", "D2", "D3", "D4")
SIZES = dict(zip(ALGEBRAS, (1, 2, 4, 4, 9, 16, 8, 2, 3, 4), strict=True))


def multiply(name: str, t: list, v: list) -> list:
    """One product of two tuples, from the definition of each algebra rather than from a table."""
    if name == "R":
        return [t[0] * v[0]]
    if name == "C":
        z = complex(*t) * complex(*v)
        return [z.real, z.imag]
    if name == "H":  # Hamilton's i^2 = j^2 = k^2 = ijk = -1, as pairs of complex numbers (Cayley-Dickson)
        a, b, c, d = complex(t[0], t[1]), complex(t[2], t[3]), complex(v[0], v[1]), complex(v[2], v[3])
        first, second = a * c - d.conjugate() * b, d * a + b * c.conjugate()
        return [first.real, first.imag, second.real, second.imag]
    if name == "M2C":
        pair = lambda x: [[complex(x[0], x[1]), complex(x[2], x[3])], [complex(x[4], x[5]), complex(x[6], x[7])]]
        out = matmul(pair(t), pair(v))
        return [part for row in out for z in row for part in (z.real, z.imag)]
    n = int(name[1])
    if name.startswith("D"):
        return [a * b for a, b in zip(t, v, strict=True)]
    rows = lambda x: [x[i * n : (i + 1) * n] for i in range(n)]
    return [x for row in matmul(rows(t), rows(v)) for x in row]


def matmul(a: list, b: list) -> list:
    return [[sum(x * row[c] for x, row in zip(line, b, strict=True)) for c in range(len(b[0]))] for line in a]


def dense(name: str, weight: torch.Tensor) -> torch.Tensor:
    """(out, in, *kernel, A) to the real (out * A, in * A, *kernel), one basis tuple at a time."""
    size = SIZES[name]
    out, inputs, *kernel = weight.shape[:-1]
    result = weight.new_zeros(out * size, inputs * size, *kernel)
    basis = torch.eye(size, dtype=torch.float64).tolist()
    for left in range(size):
        for right in range(size):
            for o, value in enumerate(multiply(name, basis[left], basis[right])):
                result[o::size, right::size] += value * weight[..., left]
    return result
