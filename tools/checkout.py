"""Makes the packages of this checkout importable for its programs: nothing need be installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
