"""The examples say what they mean: each runs here, or what it compares is compared here."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from spattn.expressions.evaluation import evaluate
from spattn.expressions.tensors import Tensors
from spattn.frontend.meaning import meaning
from spattn.frontend.parser import parse

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_demo_runs() -> None:
    done = subprocess.run([sys.executable, EXAMPLES / "demo.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "max error of dv" in done.stdout


def beside() -> ModuleType:
    spec = importlib.util.spec_from_file_location("beside_flexattention", EXAMPLES / "beside_flexattention.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.DEVICE = "cpu"
    return module


NAMES = (
    "example_16k_d64",
    "sw1024_16k_d128",
    "sw4096_64k_d128_gqa4",
    "docs_64k_d128",
    "blockrand10_32k_d128",
    "dense_causal_8k_d128",
    "dense_causal_16k_d64",
    "dilated512x4_32k_d128",
    "strided128_16k_d64",
    "na2d_128x128_r6_d64",
    "headers_local256_64k_d128",
)


@pytest.mark.parametrize("name", NAMES)
def test_the_mask_beside_a_pattern_is_the_same_set(name: str) -> None:
    torch = pytest.importorskip("torch")
    module = beside()
    assert set(module.WORKLOADS) == set(NAMES)
    one = module.WORKLOADS[name]
    tensors = one.tensors()
    rows = np.unique(np.random.default_rng(0).integers(0, one.length, 40))[:, None]
    keys = np.arange(one.length)[None, :]
    head = one.q_heads - 1
    env = {"q": rows, "k": keys, "h": head, "b": 0, "kv_len": one.length, "num_heads": one.q_heads, "batch_size": 1}
    given = Tensors({n: t.numpy() for n, t in tensors.items()}, one.length, 1, one.q_heads)
    expected = evaluate(meaning(parse(one.pattern, one.bindings)), env, given)
    q, k = torch.from_numpy(rows), torch.from_numpy(keys)
    found = one.mask(tensors)(torch.tensor(0), torch.tensor(head), q, k)
    assert np.array_equal(np.broadcast_to(found.numpy(), expected.shape), expected)
