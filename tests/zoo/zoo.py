"""Every case by group. Importing this module fills the registry."""

import kinds
import models_basic
import models_library
import models_training
import programs
from running import REGISTRY

MODELS = [c for c in REGISTRY.values() if c.group in (models_basic.__name__, models_training.__name__, models_library.__name__)]
WRITES = [c for c in REGISTRY.values() if c.group == programs.__name__]
KINDS = [c for c in REGISTRY.values() if c.group == kinds.__name__]
EVERYTHING = [*MODELS, *WRITES, *KINDS]
