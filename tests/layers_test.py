"""The house's rules that a machine can check: who may include whom, sizes, and words that must not appear.

allocator <- profiler <- policy <- integration; torch and Python only in integration, CUDA only in allocator/cuda and profiler/cupti (and in tests/simcuda, which stands in for it)."""

import ast
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAYERS = ["allocator", "profiler", "policy", "integration"]
CPP = {".cpp", ".hpp", ".h", ".cc", ".cu"}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.MULTILINE)
TORCH = re.compile(r"^(torch|ATen|c10|caffe2)/")
PYTHON = re.compile(r"^(Python\.h|nanobind/|pybind11/)")
CUDA = re.compile(r"^(cuda|cupti|nvrtc|cublas|cudnn|nccl)[\w/]*\.h|^(cuda|nvtx3)/")
CUDA_FOLDERS = (("allocator", "cuda"), ("profiler", "cupti"), ("tests", "simcuda"))
FUNCTION_LINES, FILE_LINES, TEST_FILE_LINES = 60, 400, 600


def listed():
    """Files of the work tree that git tracks or would track."""
    out = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted({pathlib.Path(line) for line in out.splitlines() if (ROOT / line).is_file()})


def text_of(path):
    return (ROOT / path).read_text(encoding="utf-8")


def sources(*suffixes):
    return [p for p in listed() if p.suffix in suffixes]


def layer_of(path):
    """The layer a file lives in, or that of the thing it tests; None for tests' own support, examples and benchmarks."""
    parts = path.parts
    if parts[0] in LAYERS:
        return parts[0]
    return parts[1] if parts[0] == "tests" and len(parts) > 2 and parts[1] in LAYERS else None


def forbidden_includes(path, text):
    """Includes of `text` that its place in the tree does not allow, with the reason."""
    layer, found = layer_of(path), []
    for name in INCLUDE.findall(text):
        target = name.split("/")[0]
        if layer and target in LAYERS and LAYERS.index(target) > LAYERS.index(layer):
            found.append(f"{path}: {layer} may not include {name}")
        if layer and layer != "integration" and (TORCH.match(name) or PYTHON.match(name)):
            found.append(f"{path}: torch and Python belong to integration: {name}")
        if CUDA.match(name) and path.parts[:2] not in CUDA_FOLDERS:
            found.append(f"{path}: CUDA belongs to allocator/cuda and profiler/cupti: {name}")
        if name.startswith("../"):
            found.append(f"{path}: include from the root, not {name}")
    return found


def test_includes_point_left():
    assert [] == [f for p in sources(*CPP) for f in forbidden_includes(p, text_of(p))]


@pytest.mark.parametrize("place, line", [("allocator/core.hpp", '#include "profiler/trace.hpp"'), ("profiler/flops.cpp", '#include "policy/plan.hpp"'),
                                         ("policy/planner.cpp", "#include <torch/torch.h>"), ("policy/plan.hpp", "# include <c10/core/Device.h>"),
                                         ("tests/policy/a_test.cpp", '#include "integration/torch/engine.hpp"'), ("profiler/x.cpp", "#include <Python.h>"),
                                         ("integration/torch/engine.cpp", "#include <cuda_runtime.h>"), ("tests/allocator/a_test.cpp", "#include <nvtx3/nvToolsExt.h>"), ("policy/a.cpp", '#include "../allocator/core.hpp"')])
def test_a_wrong_include_is_found(place, line):
    assert len(forbidden_includes(pathlib.Path(place), f"// text\n{line}\n")) == 1


@pytest.mark.parametrize("place, line", [("policy/planner.cpp", '#include "allocator/core.hpp"'), ("integration/torch/engine.cpp", "#include <torch/torch.h>"),
                                         ("allocator/cuda/device.cpp", "#include <cuda_runtime.h>"), ("allocator/core.cpp", '#include "allocator/core.hpp"')])
def test_a_right_include_is_left_alone(place, line):
    assert forbidden_includes(pathlib.Path(place), line) == []


def test_torch_is_imported_only_in_integration():
    bad = []
    for path in sources(".py"):
        if path.parts[0] in LAYERS[:3]:
            for node in ast.walk(ast.parse(text_of(path))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                bad += [f"{path}: imports {n}" for n in names if n.split(".")[0] in ("torch", "reprise")]
    assert bad == []


def test_cmake_links_point_left():
    bad = []
    for index, layer in enumerate(LAYERS[:3]):
        for path in listed():
            if path.parts[0] == layer and path.name == "CMakeLists.txt":
                bad += [f"{path}: links {right}" for right in LAYERS[index + 1:] if re.search(rf"\breprise_{right}\b", text_of(path))]
                bad += [f"{path}: looks for torch" for _ in re.findall(r"(?i)find_package\(\s*(torch|cuda|python)", text_of(path))]
    assert bad == []


def cpp_functions(text):
    """(first line, lines) of each C++ function body, by brace counting on text without comments and literals.
    A body is a brace that follows `)` and perhaps qualifiers, at namespace or class depth."""
    clean = re.sub(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'',
                   lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.DOTALL)
    stack, found, start = [], [], 0
    for i, c in enumerate(clean):
        if c == "{":
            head = clean[start:i].strip()
            inside = any(kind == "function" for kind, _ in stack)
            is_function = not inside and re.search(r"\)\s*(const|noexcept|override|final|mutable|->[^{;]*|:[^{;]*|\s)*$", head) and not re.match(r"(namespace|class|struct|enum|union)\b", head)
            stack.append(("function" if is_function else "other", i))
            start = i + 1
        elif c == "}":
            if stack:
                kind, at = stack.pop()
                if kind == "function":
                    found.append((clean.count("\n", 0, at) + 1, clean.count("\n", at, i) + 1))
            start = i + 1
        elif c == ";":
            start = i + 1
    return found


def python_functions(text):
    return [(n.lineno, n.end_lineno - n.lineno + 1) for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_the_function_counter_counts():
    text = 'namespace a {\nstruct B {\n  int f() const {\n    if (x) {\n      y("}");\n    }\n    return 1;\n  }\n};\nvoid g(int a) noexcept { h(a); }\n}\n'
    assert cpp_functions(text) == [(3, 6), (10, 1)]
    assert python_functions("def f():\n    a = 1\n    return a\n") == [(1, 3)]


def test_functions_are_short():
    bad = []
    for path in sources(*CPP):
        bad += [f"{path}:{line}: {n} lines" for line, n in cpp_functions(text_of(path)) if n > FUNCTION_LINES]
    for path in sources(".py"):
        bad += [f"{path}:{line}: {n} lines" for line, n in python_functions(text_of(path)) if n > FUNCTION_LINES]
    assert bad == []


def test_files_are_short():
    limit = {p: TEST_FILE_LINES if p.parts[0] == "tests" else FILE_LINES for p in sources(".py", *CPP)}
    assert [] == [f"{p}: {n} lines" for p in limit if (n := text_of(p).count("\n")) > limit[p]]


def test_nothing_is_left_to_do():
    word = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b")
    assert [] == [f"{p}: {m}" for p in sources(".py", ".md", ".txt", ".cmake", "", *CPP) for m in word.findall(text_of(p))]


def test_no_machine_paths():
    """No file names a place that exists on one machine only, nor a package registry."""
    place = re.compile(r"/ho" + r"me/\w|/ro" + r"ot/\w|/wo" + r"rk/\w|/Us" + r"ers/\w|index" + r"-url|pypi\.or" + r"g|trusted" + r"-host")
    text_suffixes = {".py", ".md", ".txt", ".cmake", ".toml", ".json", ".sh", "", *CPP}
    assert [] == [f"{p}: {m}" for p in listed() if p.suffix in text_suffixes for m in place.findall(text_of(p))]


def test_each_layer_says_what_it_is():
    assert [] == [layer for layer in LAYERS if not (ROOT / layer / "README.md").is_file()]
