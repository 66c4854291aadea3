"""The examples of docstrings and of the README run, and the stub says what is there."""

import ast
import doctest
import importlib
import inspect
import pathlib
import re

import pytest

import medcam_rs
from medcam_rs import _native


@pytest.mark.parametrize("name", ["medcam_rs", "medcam_rs._chains", "medcam_rs._files", "medcam_rs._ops"])
def test_docstrings(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0
    assert result.attempted or name == "medcam_rs"


def test_every_public_function_has_an_example():
    for name in medcam_rs.__all__:
        function = getattr(medcam_rs, name)
        if inspect.isfunction(function) and name not in ("cuda_devices", "accelerate"):
            assert ">>>" in function.__doc__, name


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
