"""The quality suite: Madam with its defaults, at several widths, against tuned Adam and SGD on small tasks of many kinds.

``python -m benchmarks.quality`` trains the runs that its folder lacks, one JSON file a run, and writes ``quality.md``.

The modules: `tasks` uses `data`, `networks`, `gan` and `frechet`. `settings` defines one run, and `parts` the runs that
answer each question. `training` trains one run, `pool` spreads runs over processes, `store` keeps them. `statistics`,
`report` and `figure` show the results.
"""
