"""With this folder on PYTHONPATH every Python process begins on the simulated CUDA device, in numeric mode (dev's --simulated; SIMCUDA_FOLDER says where it is
built). The libraries are loaded here, before anybody imports torch; operators are redirected at the end of `import torch`, by the entry point beside this file."""

import pathlib
import sys

sys.path.insert(1, str(pathlib.Path(__file__).parent.parent))
import simcuda  # noqa: E402

device = simcuda.load(memory_mib=8192)


def redirect_operators():
    import torch

    torch.backends.cudnn.enabled = False
    device.redirect_operators()
