"""The speed suite: what Madam, few-bit weights and the whole library cost, as ratios to what users have without them.

``python -m benchmarks.speed`` measures everything in one run and writes docs/benchmarks.md.

The rooms: `measure` runs contenders by turns and knows what a row is, `networks` has the two models; `optimizer`,
`reading`, `training`, `bytes_held`, `resident` and `starting` have the rows, a theme each; `cli` and `report` the rest.
"""
