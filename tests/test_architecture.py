"""Imports go one way, as the data does."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import beam_flowers

PACKAGE = Path(beam_flowers.__file__).parent
LAYERS = [
    "errors",
    "records",
    "files",
    "images",
    "backbones",
    "store",
    "head",
    "doctor",
    "finetune",
    "evaluation",
    "scores",
    "scoring",
    "workers",
    "export",
    "report",
    "pages",
    "review",
    "transforms",
    "workflows",
    "contrib",
    "cli",
]
SAME_LAYER = {
    "runs": "workflows",
    "plan_transforms": "transforms",
    "check_transforms": "transforms",
    "worker_setup": "workers",
    "augment_transforms": "transforms",
    "streaming": "transforms",
    "inference": "transforms",
    "yaml_rows": "transforms",
    "yaml_transforms": "transforms",
}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def layer(module: str) -> int:
    """Position of `beam_flowers.<module>...` on the way of the data."""
    name = module.split(".")[0]
    return LAYERS.index(SAME_LAYER.get(name, name))


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_the_left(path):
    own = layer(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    inside = {n.partition(".")[2] for n in imported(path) if n.startswith("beam_flowers.")}
    wrong = [n for n in inside if n.split(".")[0].islower() and layer(n) > own]
    assert not wrong


def test_tensorflow_is_imported_in_backbones_and_exports_alone():
    users = {p.parent.name for p in MODULES if any("tensorflow" in n for n in imported(p))}
    assert users <= {"backbones", "export", "finetune"}


def test_the_root_exports_what_it_lists():
    for name in beam_flowers.__all__:
        assert getattr(beam_flowers, name).__name__ == name


def test_help_imports_neither_beam_nor_tensorflow_nor_arrow():
    script = (
        "import sys; from beam_flowers.cli.main import main\n"
        "try: main(['embed', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'apache_beam', 'tensorflow', 'pyarrow', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_pipelines_of_single_labels_import_no_scipy():
    script = (
        "import sys; import beam_flowers.transforms.plan, beam_flowers.scoring.table\n"
        "assert 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
