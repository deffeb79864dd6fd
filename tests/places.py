"""Places in the repository that several tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
DATA = ROOT / "tests" / "data"
OLD = DATA / "written_by_0.1"
"""A store, a model and score tables as version 0.1.0 wrote them (commit af64cb0)."""
KEY = "backbone=efficientnet-lite0-bdb160ff"
"""The section of that store."""
