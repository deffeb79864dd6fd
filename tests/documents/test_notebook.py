"""The notebook runs from top to bottom, and is kept without outputs."""

import os
import sys
from pathlib import Path

import pytest
from places import DOCS

nbformat = pytest.importorskip("nbformat", reason="pip install 'beam-flowers[docs]'")

NOTEBOOK = DOCS / "newcomer.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_kept_without_outputs(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [cell.id for cell in code if cell.outputs or cell.execution_count]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_notebook_runs(notebook, tmp_path, monkeypatch):
    from nbclient import NotebookClient

    own = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{own}{os.pathsep}{os.environ['PATH']}")
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": tmp_path}}).execute()
    assert (tmp_path / "report.html").stat().st_size > 100_000
    printed = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert sum("image/png" in out.get("data", {}) for out in printed) == 2
    assert any("embedded 200, reused 0" in out.get("text", "") for out in printed)
    warned = "".join(out.text for out in printed if out.get("name") == "stderr")
    # Beam complains once of what it lacks for BigQuery; how far a command is, is no warning.
    told = [line for line in warned.splitlines() if line.strip() and "apitools" not in line]
    assert not [line for line in told if not line.endswith("so far")]
