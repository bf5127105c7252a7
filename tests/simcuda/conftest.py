def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a real CUDA device; skipped with its reason where there is none (pytest -m gpu, ctest -L gpu)")
