"""The benchmark: spattn beside its peers in one run, answers checked before anything is timed.

`spattnc bench` and `python -m spattn.bench` are the same program; the second needs neither Typer nor Rich. `workloads/`
says each pattern twice, in the language and as a mask function; `peers/` compute it; `session.py` runs the sections:
`comparison.py` sets peers side by side, `building.py` and `startup.py` time what precedes the first answer.
`host.py` is a program of its own: what a call costs its host, on any machine.
"""
