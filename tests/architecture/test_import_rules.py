"""Which module may import what, and what no module may hold.

Each rule is a function from {dotted module name: syntax tree} to complaints, one line each. It is
run on the project, and on a tiny made-up module that breaks it.
"""

import ast
import functools
import graphlib
import os
import pathlib
import re
import statistics
import subprocess
import sys
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("mm_keras", "pipelines", "trainers")
COMMANDS = (
    "trainers.mm",
    "trainers.predict",
    "trainers.report",
    "trainers.study",
    "trainers.device_study",
    "trainers.benchmark",
    "trainers.quality",
    "trainers.flags",
    "trainers.command_line",
    "trainers.startup",
    "trainers.__main__",
)
LAYERS = (
    ("trainers.config",),
    ("trainers.devices",),
    ("trainers.runs",),
    ("trainers.training",),
    ("trainers.stages", "trainers.reporting", "trainers.benchmarks", "trainers.predictions"),
    ("trainers.studies",),
    ("trainers.device_studies",),
    ("trainers.experiment",),
    COMMANDS,
)
"""Packages of trainers from bottom to top; packages of one line do not import each other."""

TENSORFLOW_MODULES = ("mm_keras.inference",)
TENSORFLOW_INSIDE = (
    "mm_keras.models",
    "mm_keras.layers.normalization",
    "mm_keras.weights.data_dependent",
)
TENSORFLOW_FREE = (
    "trainers.config",
    "trainers.flags",
    "trainers.mm",
    "trainers.predict",
    "trainers.study",
    "trainers.device_study",
)
BENCHMARK = ("trainers.benchmark", "trainers.benchmarks")


class Import(NamedTuple):
    importer: str
    imported: str
    in_function: bool
    line: int

    def __str__(self):
        return f"{self.importer}:{self.line} imports {self.imported}"


@functools.cache
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


def packages_stay_apart(modules):
    return [
        item
        for item in imports(modules)
        if (is_in(item.importer, "mm_keras") and is_in(item.imported, "pipelines", "trainers"))
        or (is_in(item.importer, "pipelines") and is_in(item.imported, "mm_keras", "trainers"))
    ]


def trainers_import_downwards(modules):
    return [
        item
        for item in imports(modules)
        if None not in (layers := (_layer(item.importer), _layer(item.imported)))
        and _package(item.importer) != _package(item.imported)
        and layers[0] <= layers[1]
        and not is_in(item.importer, *COMMANDS)
    ]


def _layer(name):
    return next((k for k, packages in enumerate(LAYERS) if is_in(name, *packages)), None)


def _package(name):
    return ".".join(name.split(".")[:2])


def trainers_have_no_module_outside_of_the_layers(modules):
    return [name for name in modules if name.startswith("trainers.") and _layer(name) is None]


def data_sets_know_no_batches(modules):
    users = ("pipelines.datasets", "pipelines.datasets.loading", "pipelines.datasets.sources")
    return [
        item
        for item in imports(modules)
        if (
            is_in(item.importer, "pipelines.datasets") and is_in(item.imported, "pipelines.batches")
        )
        or (
            is_in(item.imported, "pipelines.datasets.sources")
            and item.importer not in users
            and not is_in(item.importer, "pipelines.datasets.sources")
        )
    ]


def there_is_no_circle(modules):
    graph = {name: set() for name in modules}
    for item in imports(modules):
        target = item.imported if item.imported in modules else item.imported.rpartition(".")[0]
        if target in modules and target != item.importer:
            graph[item.importer].add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [f"circle: {' -> '.join(error.args[1])}"]
    return []


def modules_are_not_imported_by_string(modules):
    allowed = "mm_keras.backbones.libraries"  # a user names a class: applications/NAME
    return [
        f"{name}:{node.lineno} imports by string"
        for name, tree in modules.items()
        if name != allowed
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and _called(node.func) in ("import_module", "__import__", "exec", "eval")
    ]


def _called(function):
    return getattr(function, "attr", getattr(function, "id", None))


def absl_only_in_commands(modules):
    return [
        item
        for item in imports(modules)
        if is_in(item.imported, "absl") and item.importer not in COMMANDS
    ]


def commands_import_tensorflow_late(modules):
    """Commands and settings load no TensorFlow at import, so that a wrong flag is answered soon."""
    heavy = ("tensorflow", "keras", "mm_keras", "pipelines", "trainers.training")
    return [
        item
        for item in imports(modules)
        if is_in(item.importer, *TENSORFLOW_FREE)
        and not item.in_function
        and is_in(item.imported, *heavy)
    ]


def stages_do_not_import_each_other(modules):
    pages = ("trainers.stages.doctor_page", "trainers.stages.suggest_page")
    return [
        item
        for item in imports(modules)
        if is_in(item.importer, "trainers.stages")
        and item.importer != "trainers.stages"
        and is_in(item.imported, "trainers.stages")
        and not is_in(item.imported, *pages)
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
        and is_in(item.importer, "mm_keras", *BENCHMARK)
        and not is_in(item.importer, *TENSORFLOW_MODULES)
        and not (item.in_function and is_in(item.importer, *TENSORFLOW_INSIDE, *BENCHMARK))
    ]


def void_is_the_same(modules):
    values = {
        name: _constant(modules[name], "VOID")
        for name in ("mm_keras.losses.nodes", "pipelines.datasets.spec")
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


def modules_have_a_subject(modules):
    vague = {"utils", "util", "common", "helpers", "helper", "misc"}
    return [name for name in modules if vague & {part.strip("_") for part in name.split(".")}]


def functions_take_few_parameters(modules):
    return [
        f"{name}:{node.lineno} {node.name} has {number} parameters"
        for name, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name != "__init__"
        and (number := _num_parameters(node)) > 8
    ]


def _num_parameters(function):
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def library_has_no_assert(modules):
    return [
        f"{name}:{node.lineno} asserts"
        for name, tree in modules.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]


def library_messages_name_no_flags(modules):
    flag = re.compile(r"(?<![\w-])--[a-z]")
    return [
        f"{name}:{node.lineno} names a flag: {node.value[:60]!r}"
        for name, tree in modules.items()
        if is_in(name, "mm_keras", "pipelines")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and flag.search(node.value)
    ]


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
    packages_stay_apart: [
        {"mm_keras.a": "import pipelines"},
        {"mm_keras.a.b": "def f():\n    from trainers import config"},
        {"pipelines.a": "import mm_keras.losses as l"},
        {"pipelines.a": "try:\n    from trainers.config import x\nexcept ImportError: pass"},
    ],
    trainers_import_downwards: [
        {"trainers.config.a": "from trainers.runs import records"},
        {"trainers.runs.a": "def f():\n    from trainers import stages"},
        {"trainers.stages.a": "from trainers.reporting import plots"},
        {"trainers.reporting.a": "from trainers.benchmarks import cpu"},
        {"trainers.studies.plan": "import trainers.experiment"},
        {"trainers.experiment": "from trainers.flags import read"},
    ],
    trainers_have_no_module_outside_of_the_layers: [{"trainers.drawing": ""}],
    data_sets_know_no_batches: [
        {"pipelines.datasets.records": "from pipelines.batches import views"},
        {"pipelines.datasets.masks": "from pipelines.datasets.sources import folder"},
        {"pipelines.batches.mix": "from pipelines.datasets.sources import folder"},
    ],
    there_is_no_circle: [
        {"mm_keras.a": "from mm_keras import b", "mm_keras.b": "from mm_keras.a import f"},
        {
            "trainers.runs.a": "from trainers.runs import b",
            "trainers.runs.b": "def f():\n    from trainers.runs import c",
            "trainers.runs.c": "import trainers.runs.a",
        },
    ],
    modules_are_not_imported_by_string: [
        {"trainers.mm": "import importlib\nimportlib.import_module('trainers.stages')"},
        {"pipelines.a": "def f():\n    return __import__('os')"},
    ],
    absl_only_in_commands: [
        {"mm_keras.a": "from absl import logging"},
        {"trainers.config.schema": "from absl import flags"},
        {"trainers.stages.mm": "def f():\n    import absl.app"},
        {"trainers.stages.mm": "import absl"},
    ],
    commands_import_tensorflow_late: [
        {"trainers.mm": "from trainers.training import networks"},
        {"trainers.config.keys": "import keras"},
        {"trainers.flags": "from pipelines import datasets"},
    ],
    stages_do_not_import_each_other: [
        {"trainers.stages.mm": "from trainers.stages import segment"},
        {"trainers.stages.export": "import trainers.stages.evaluate"},
        {"trainers.stages.export": "from . import evaluate"},
    ],
    losses_know_no_model: [
        {"mm_keras.matching": "from mm_keras.models.mix_and_match import MixAndMatch"},
        {"mm_keras.losses": "from mm_keras import backbones"},
        {"mm_keras.metrics.a": "def f():\n    from mm_keras import layers"},
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
        {"mm_keras.losses.nodes": "VOID = 255", "pipelines.datasets.spec": "VOID = 254"},
        {"mm_keras.losses.nodes": "VOID: int = 0", "pipelines.datasets.spec": "VOID = 0"},
        {"mm_keras.losses.nodes": "VOID = 255", "pipelines.datasets.spec": "x = 1"},
    ],
    library_does_not_print: [
        {"mm_keras.a": "def f():\n    print(1)"},
        {"pipelines": "print('x')"},
    ],
    library_has_no_assert: [{"trainers.stages.a": "def f():\n    assert 1"}],
    library_messages_name_no_flags: [
        {"pipelines.a": "raise ValueError('use --eval_split')"},
        {"mm_keras.a": "raise ValueError(f'{1}: add --set network.width=1')"},
    ],
    modules_have_a_subject: [
        {"mm_keras.utils": ""},
        {"trainers.runs.common": ""},
        {"pipelines._helpers": ""},
    ],
    functions_are_short: [{"trainers.a": LONG, "trainers.b": SHORT}, {"trainers.a": MEDIUM}],
    functions_take_few_parameters: [
        {"trainers.a": "def f(a, b, c, d, e, /, f, g, *, h, i): pass"},
        {"mm_keras.a": "class A:\n    def call(self, a, b, c, d, e, f, g, h, i): pass"},
    ],
}

ALLOWED = {
    "mm_keras": "from mm_keras import backbones, losses, models",
    "mm_keras.layers": "",
    "mm_keras.models": "",
    "mm_keras.losses": "from keras import ops",
    "mm_keras.losses.nodes": "VOID: int = 255",
    "mm_keras.inference.export": "import tensorflow as tf\nfrom mm_keras import losses",
    "mm_keras.models.a": "from mm_keras import losses\ndef f():\n    import tensorflow as tf",
    "mm_keras.backbones": "from mm_keras.backbones import vgg16",
    "mm_keras.backbones.vgg16": "from mm_keras import layers\nx = 'a -- b'",
    "pipelines.datasets.spec": "VOID = 255\ndef show():\n    log.print('x')",
    "pipelines.datasets.loading": "from pipelines.datasets.sources import SOURCES",
    "pipelines.datasets.sources": "def f():\n    from pipelines.datasets.sources import folder",
    "pipelines.datasets.sources.folder": "import tensorflow as tf",
    "trainers.mm": "from absl import app, flags\nfrom trainers import stages\nprint(1)",
    "trainers.study": "from trainers import flags\ndef f():\n    from trainers import studies",
    "trainers.stages": "def f():\n    from trainers.stages import mm",
    "trainers.stages.mm": "from trainers import config\nfrom trainers.runs import records",
    "trainers.studies.plan": "from trainers.stages import select\nfrom trainers.reporting import x",
    "trainers.config.a": LONG.replace("    x = 1\n", "", 1),
    "trainers.config.b": "def f():\n    '''a\n    b\n    '''\n    return 1\nasync def g(): pass",
    "trainers.runs.c": "class A:\n    def __init__(self, a, b, c, d, e, f, g, h, i): pass",
}


def parsed(sources):
    return {name: ast.parse(source) for name, source in sources.items()}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_rule(rule):
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
def test_allowed_code_passes(rule):
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
    if not module.name.startswith("mm_keras.inference"):
        importlib.import_module(module.name)
for name in set(mm_keras.__all__) - {"Predictor", "inference", "load_predictor"}:
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
