"""Which module may import what, and what no module may hold.

Each rule is a function from {dotted module name: syntax tree} to complaints, one line each. It is
run on the project, and on a tiny made-up module that breaks it.
"""

import ast
import os
import pathlib
import statistics
import subprocess
import sys
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("mm_keras", "pipelines", "trainers")
BENCHMARK = ("trainers.benchmark", "trainers.benchmark_cpu", "trainers.benchmark_gpu")
RUN_MODULES = ("trainers.mm", "trainers.report", "trainers.study", "trainers.benchmark")
STAGES = tuple(
    f"trainers.{s}" for s in ("proxy", "tune", "segment", "evaluate", "export", "predict")
)
TENSORFLOW_MODULES = ("mm_keras.inference", "mm_keras.protocols")
TENSORFLOW_INSIDE = ("mm_keras.models", "mm_keras.layers.normalization", *BENCHMARK)


class Import(NamedTuple):
    importer: str
    imported: str
    in_function: bool
    line: int

    def __str__(self):
        return f"{self.importer}:{self.line} imports {self.imported}"


def project_modules():
    """{dotted name: tree} of the three packages; a package's __init__ carries its own name."""
    modules = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            modules[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return modules


def is_in(name, *packages):
    return any(name == package or name.startswith(package + ".") for package in packages)


def imports(modules):
    """All imports, those inside functions included; `from a import b` counts as a.b."""
    packages = {name.rpartition(".")[0] for name in modules}
    for name, tree in modules.items():
        for node, in_function in _with_place(tree):
            for imported in _imported_names(node, name, is_package=name in packages):
                yield Import(name, imported, in_function, node.lineno)


def _with_place(node, in_function=False):
    for child in ast.iter_child_nodes(node):
        yield child, in_function
        yield from _with_place(child, in_function or _is_function(child))


def _is_function(node):
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _imported_names(node, importer, is_package):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if node.level:
            parts = importer.split(".")
            base = parts[: len(parts) - node.level + is_package]
            module = ".".join([*base, module] if module else base)
        return [f"{module}.{alias.name}" for alias in node.names]
    return []


def rooms_stay_apart(modules):
    return [
        item
        for item in imports(modules)
        if (is_in(item.importer, "mm_keras") and is_in(item.imported, "pipelines", "trainers"))
        or (is_in(item.importer, "pipelines") and is_in(item.imported, "mm_keras", "trainers"))
    ]


def absl_only_in_trainers(modules):
    return [
        item
        for item in imports(modules)
        if is_in(item.imported, "absl") and not is_in(item.importer, "trainers")
    ]


def flags_only_in_modules_that_are_run(modules):
    # A plain `import absl` could reach the flags too.
    return [
        item
        for item in imports(modules)
        if (is_in(item.imported, "absl.flags", "absl.app") or item.imported in ("absl", "absl.*"))
        and item.importer not in RUN_MODULES
    ]


def stages_do_not_import_each_other(modules):
    return [
        item
        for item in imports(modules)
        if item.importer in STAGES
        and is_in(item.imported, *(stage for stage in STAGES if stage != item.importer))
    ]


def losses_know_no_model(modules):
    models = ("mm_keras.models", "mm_keras.backbones", "mm_keras.layers")
    return [
        item
        for item in imports(modules)
        if is_in(item.importer, "mm_keras.matching", "mm_keras.losses", "mm_keras.metrics")
        and (is_in(item.imported, *models) or item.imported in ("mm_keras", "mm_keras.*"))
    ]


def networks_know_no_loss(modules):
    return [
        item
        for item in imports(modules)
        if is_in(item.importer, "mm_keras.backbones", "mm_keras.layers")
        and (is_in(item.imported, "mm_keras.losses") or item.imported in ("mm_keras", "mm_keras.*"))
    ]


def tensorflow_only_where_it_is_used(modules):
    """Free in TENSORFLOW_MODULES; in functions of TENSORFLOW_INSIDE; else not in mm_keras."""
    return [
        item
        for item in imports(modules)
        if is_in(item.imported, "tensorflow", "tensorflow_datasets", "keras_cv")
        and is_in(item.importer, "mm_keras", *BENCHMARK, "trainers.timing", "trainers.peers")
        and item.importer not in TENSORFLOW_MODULES
        and not (item.in_function and is_in(item.importer, *TENSORFLOW_INSIDE))
    ]


def void_is_the_same(modules):
    values = {
        name: _constant(modules[name], "VOID")
        for name in ("mm_keras.losses", "pipelines.datasets")
        if name in modules
    }
    return [] if set(values.values()) == {255} else [f"VOID is {values}, expected 255 in both"]


def _constant(tree, name):
    """The literal that a module assigns to `name`, None if there is none."""
    for node in tree.body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.literal_eval(node.value)
    return None


def library_does_not_print(modules):
    return [
        f"{name}:{node.lineno} prints"
        for name, tree in modules.items()
        if is_in(name, "mm_keras", "pipelines")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print"
    ]


def modules_say_what_they_are_about(modules):
    vague = {"utils", "util", "common", "helpers", "helper", "misc"}
    return [name for name in modules if vague & {part.strip("_") for part in name.split(".")}]


def functions_are_short(modules):
    lengths = {
        f"{name}:{node.lineno} {node.name}": _length(node)
        for name, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    complaints = [f"{name} has {n} lines" for name, n in lengths.items() if n > 60]
    if lengths and statistics.median(lengths.values()) >= 12:
        complaints.append(f"the median function has {statistics.median(lengths.values())} lines")
    return complaints


def _length(function):
    """Lines from `def` to the end, without the docstring."""
    total = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is None:
        return total
    return total - (function.body[0].end_lineno - function.body[0].lineno + 1)


LONG = "def f():\n    'doc'\n" + "    x = 1\n" * 60
SHORT = "def f(): pass\ndef g(): pass"
MEDIUM = "".join(f"def f{i}():\n" + "    x = 1\n" * 11 for i in range(3))

# Each rule with modules that break it, each on its own.
RULES = {
    rooms_stay_apart: [
        {"mm_keras.a": "import pipelines"},
        {"mm_keras.a.b": "def f():\n    from trainers import config"},
        {"pipelines.a": "import mm_keras.losses as l"},
        {"pipelines.a": "try:\n    from trainers.config import x\nexcept ImportError: pass"},
    ],
    absl_only_in_trainers: [
        {"mm_keras.a": "from absl import logging"},
        {"pipelines.a": "import absl.logging"},
    ],
    flags_only_in_modules_that_are_run: [
        {"trainers.config": "from absl import flags"},
        {"trainers.tune": "def f():\n    import absl.app"},
        {"trainers.tune": "import absl"},
    ],
    stages_do_not_import_each_other: [
        {"trainers.tune": "from trainers import segment"},
        {"trainers.export": "import trainers.evaluate"},
        {"trainers.export": "from . import evaluate"},
    ],
    losses_know_no_model: [
        {"mm_keras.matching": "from mm_keras.models.mix_and_match import MixAndMatch"},
        {"mm_keras.losses": "from mm_keras import backbones"},
        {"mm_keras.metrics": "def f():\n    from . import layers"},
        {"mm_keras.metrics": "import mm_keras"},
    ],
    networks_know_no_loss: [
        {"mm_keras.backbones.vgg16": "from mm_keras import losses"},
        {"mm_keras.backbones.vgg16": "from ..losses import VOID"},
        {"mm_keras.backbones": "from ..losses import VOID", "mm_keras.backbones.a": ""},
        {"mm_keras.layers": "from mm_keras.losses import VOID"},
    ],
    tensorflow_only_where_it_is_used: [
        {"mm_keras.models.a": "import tensorflow as tf"},
        {"mm_keras.models.a": "class A:\n    from tensorflow import data"},
        {"mm_keras.layers": "def f():\n    import tensorflow as tf"},
        {"mm_keras": "import keras_cv"},
        {"trainers.benchmark": "import tensorflow as tf"},
    ],
    void_is_the_same: [
        {"mm_keras.losses": "VOID = 255", "pipelines.datasets": "VOID = 254"},
        {"mm_keras.losses": "VOID: int = 0", "pipelines.datasets": "VOID = 0"},
        {"mm_keras.losses": "VOID = 255", "pipelines.datasets": "x = 1"},
    ],
    library_does_not_print: [
        {"mm_keras.a": "def f():\n    print(1)"},
        {"pipelines": "print('x')"},
    ],
    modules_say_what_they_are_about: [
        {"mm_keras.utils": ""},
        {"trainers.common.a": ""},
        {"pipelines._helpers": ""},
    ],
    functions_are_short: [{"trainers.a": LONG, "trainers.b": SHORT}, {"trainers.a": MEDIUM}],
}

ALLOWED = {
    "mm_keras": "import importlib\nfrom mm_keras import backbones, losses, models",
    "mm_keras.losses": "from keras import ops\nVOID: int = 255",
    "mm_keras.inference": "import tensorflow as tf\nfrom mm_keras import losses",
    "mm_keras.models.a": "from mm_keras import losses\ndef f():\n    import tensorflow as tf",
    "mm_keras.backbones": "from mm_keras.backbones import vgg16",
    "mm_keras.backbones.vgg16": "from mm_keras import layers",
    "pipelines.datasets": "import tensorflow as tf\nVOID = 255\ndef show():\n    log.print('x')",
    "trainers.mm": "from absl import app, flags\nfrom trainers import tune, segment\nprint(1)",
    "trainers.tune": "from absl import logging\nfrom trainers import config, runtime",
    "trainers.a": LONG.replace("    x = 1\n", "", 1),
    "trainers.b": "def f():\n    '''a\n    b\n    '''\n    return 1\nasync def g(): pass",
}


def parsed(sources):
    return {name: ast.parse(source) for name, source in sources.items()}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps(rule):
    complaints = [str(complaint) for complaint in rule(project_modules())]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize(
    "rule, broken",
    [(rule, sources) for rule, examples in RULES.items() for sources in examples],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_breach_is_found(rule, broken):
    assert len(rule(parsed(broken))) == 1


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_what_is_allowed_passes(rule):
    assert not rule(parsed(ALLOWED))


def test_every_package_is_read():
    assert {name.split(".")[0] for name in project_modules()} == set(PACKAGES)


def test_the_library_imports_on_jax_without_tensorflow():
    code = """
import importlib, pkgutil, sys
for name in ("tensorflow", "tensorflow_datasets", "keras_cv"):
    sys.modules[name] = None  # importing it raises
import mm_keras
for module in pkgutil.walk_packages(mm_keras.__path__, "mm_keras."):
    if module.name not in ("mm_keras.inference", "mm_keras.protocols"):
        importlib.import_module(module.name)
for name in set(mm_keras.__all__) - {"Predictor", "inference"}:
    getattr(mm_keras, name)
try:
    mm_keras.Predictor
except ImportError as error:
    assert "tensorflow" in str(error), error
else:
    raise AssertionError("Predictor came without TensorFlow")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
