"""Scores: what becomes of s = scale * (q . k) before the mask, as text, as data, with derivatives.

>>> from spattn.scores.parser import parse
>>> str(parse("softcap(c) + alibi(slopes)", {"c": 30}))
'softcap(30) + alibi(slopes)'
"""
