"""The examples of docstrings and of the README run, and the stub says what is there."""

import ast
import doctest
import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import pytest

import medcam_rs
from medcam_rs import _native


NEED_TORCH = ("medcam_rs._export", "medcam_rs.injection")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "name", ["medcam_rs", "medcam_rs._chains", "medcam_rs._files", "medcam_rs._ops", *NEED_TORCH]
)
def test_docstrings(name):
    if name in NEED_TORCH:
        pytest.importorskip("torch", reason="PyTorch is not installed here")
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    assert result.attempted or name == "medcam_rs"


def test_every_public_function_has_an_example():
    for name in medcam_rs.__all__:
        function = getattr(medcam_rs, name)
        if function is medcam_rs._inject_without_torch:
            continue
        if inspect.isfunction(function) and name not in ("cuda_devices", "accelerate"):
            assert ">>>" in function.__doc__, name


def python_without_torch(code):
    """Runs code where torch cannot be imported."""
    code = "import sys; sys.modules['torch'] = None\n" + code
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_torch_is_not_imported_and_not_needed():
    code = "import sys, medcam_rs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
    code = """
from medcam_rs import *
for call in (lambda: inject(None), lambda: export(None, None)):
    try:
        call()
    except ImportError as error:
        print(error)
"""
    said = python_without_torch(code).stdout.splitlines()
    assert [line.partition(":")[0] for line in said] == ["inject", "export"]
    assert all("medcam-rs[torch]" in line for line in said)


def test_readme():
    readme = pathlib.Path(__file__).parents[1] / "README.md"
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(readme), "exec"), {})


def test_the_stub_is_the_module():
    stub = pathlib.Path(medcam_rs.__file__).with_name("_native.pyi")
    said = {}
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            said[node.name] = arguments(node)
        elif isinstance(node, ast.ClassDef):
            said |= {f"{node.name}.{method.name}": arguments(method) for method in node.body}
    there = {}
    for name, value in vars(_native).items():
        if isinstance(value, type):
            methods = vars(value).items()
            there |= {f"{name}.{of}": parameters(method) for of, method in methods if is_ours(of)}
            there[f"{name}.__init__"] = ["self", *parameters(value)]
        elif callable(value) and not name.startswith("_"):
            there[name] = parameters(value)
    assert said == there


def arguments(node):
    return [argument.arg for argument in node.args.args]


def parameters(value):
    return list(inspect.signature(value).parameters)


def is_ours(method):
    return method == "__len__" or not method.startswith("_")


def test_one_version():
    assert medcam_rs.__version__ == _native.VERSION
    assert importlib.import_module("importlib.metadata").version("medcam-rs") == medcam_rs.__version__
