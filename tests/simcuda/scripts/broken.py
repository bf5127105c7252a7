import torch

torch.ones(3, device="cuda")
raise ValueError("the script's own mistake")
