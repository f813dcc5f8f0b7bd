"""The group `decode`: steps of many requests over caches, in microseconds, beside peers and beside memory's floor.

`workload.py` is what is asked, `case.py` the tensors of it, `trial.py` one peer on it. A graph of steps goes round
layers of caches (`layers.py`) that the L2 cache cannot hold, as a model's do.
"""
