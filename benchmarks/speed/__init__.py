"""The speed suite: the cost of Madam, of few-bit weights and of the whole library, as ratios to float32 and Adam.

``python -m benchmarks.speed`` measures everything in one run and writes docs/benchmarks.md.

The modules: `measure` times contenders by turns and defines a row. `networks` has the two models. `optimizer`,
`reading`, `training`, `bytes_held`, `resident`, `starting` and `gpu` have the rows of one theme each.
"""
