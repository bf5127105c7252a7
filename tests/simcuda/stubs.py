"""usage: stubs.py OUT LIBRARY…: writes OUT/SONAME.c and OUT/SONAME.map for every CUDA library that LIBRARY… (torch's) need, and prints the sonames.

The .c file has a weak function for every symbol that torch uses of that library: it says so (simcuda_not_simulated) and returns the library's own
"not supported". What is simulated is a strong function of the same name. The .map file names the symbols' version nodes: without them ld.so refuses a
library under a real soname. So a new torch costs a rebuild and nothing else.
"""

import collections
import dataclasses
import pathlib
import re
import subprocess
import sys


@dataclasses.dataclass(frozen=True)
class Family:
    library: str  # how its soname begins
    symbols: str  # how its symbols begin
    not_supported: int


# A family comes before another whose symbols begin with the same letters.
FAMILIES = [Family("libcublasLt.so", "cublasLt", 15), Family("libcublas.so", "cublas", 15), Family("libcudart.so", "(?:__)?cuda[A-Z]", 801),
            Family("libcudnn.so", "cudnn", 3000), Family("libcusparseLt.so", "cusparseLt", 10), Family("libcusparse.so", "cusparse", 10),
            Family("libcufft.so", "cufft", 14), Family("libcurand.so", "curand", 203), Family("libcusolver.so", "cusolver", 9),
            Family("libnccl.so", "p?nccl", 3), Family("libnvrtc.so", "nvrtc", 11), Family("libcufile.so", "cuFile", 5001),
            Family("libnvshmem_host.so", "nvshmem", 1), Family("libcupti.so", "cupti", 15), Family("libcuda.so", "cu[A-Z]", 801)]
# Their callers print what they return.
RETURNS_TEXT = {"ncclGetErrorString", "ncclGetLastError", "nvrtcGetErrorString", "cusparseGetErrorString", "cusparseLtGetErrorString"}


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def needed(library):
    for name in re.findall(r"\(NEEDED\).*\[(.+)\]", output_of("readelf", "-dW", library)):
        if any(name.startswith(family.library) for family in FAMILIES):
            yield name


def undefined(library):
    """(symbol, version node or ""); weak ones may stay undefined."""
    for line in output_of("nm", "-D", "--undefined-only", library).splitlines():
        kind, symbol = line.split()[-2:]
        if kind not in "wv":
            name, _, version = symbol.partition("@")
            yield name, version.lstrip("@")


def write(folder, soname, not_supported, symbols):
    lines = ["extern int simcuda_not_simulated(const char*, int);", '#define STUB __attribute__((weak, visibility("default")))']
    for name in sorted(symbols):
        if name in RETURNS_TEXT:
            lines.append(f'STUB const char* {name}(void) {{ return "not simulated"; }}')
        else:
            lines.append(f'STUB int {name}(void) {{ return simcuda_not_simulated("{name}", {not_supported}); }}')
    (folder / f"{soname}.c").write_text("\n".join(lines) + "\n")
    nodes = collections.defaultdict(list)
    for name, version in sorted(symbols.items()):
        if version:
            nodes[version].append(name + ";")
    (folder / f"{soname}.map").write_text("".join(f"{node} {{ global: {' '.join(names)} }};\n" for node, names in sorted(nodes.items())))


def main(folder, libraries):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sonames, symbols = {"libcuda.so.1"}, collections.defaultdict(dict)
    for library in libraries:
        sonames.update(needed(library))
        for name, version in undefined(library):
            family = next((family for family in FAMILIES if re.match(family.symbols, name)), None)
            if family:
                symbols[family].setdefault(name, version)
    for soname in sorted(sonames):
        family = next(family for family in FAMILIES if soname.startswith(family.library))
        write(folder, soname, family.not_supported, symbols[family])
    print(";".join(sorted(sonames)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
