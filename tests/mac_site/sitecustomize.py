"""A Python that starts with this folder in PYTHONPATH is one on the emulated Mac that `mac.emulated` made."""

import os
from pathlib import Path

import mac

mac.emulate(mac.Mac(Path(os.environ[mac.VARIABLE])))
