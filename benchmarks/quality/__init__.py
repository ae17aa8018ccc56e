"""The quality suite: Madam with its defaults, at several widths, against tuned Adam and SGD on small tasks of many kinds.

``python -m benchmarks.quality`` trains what is missing in its folder, one JSON file a run, and writes ``quality.md``.

The rooms: `data`, `networks`, `gan` and `frechet` make up `tasks`; `settings` says what one run is, `parts` which runs
answer which question; `training` trains one, `pool` spreads them over processes, `store` keeps them; `statistics`,
`report` and `figure` condense them.
"""
