"""What is imported when it runs; `lint-imports` holds the order of the rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import beam_flowers

PACKAGE = Path(beam_flowers.__file__).parent
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


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


def test_tensorflow_is_imported_in_backbones_and_exports_alone():
    users = {p.parent.name for p in MODULES if any("tensorflow" in n for n in imported(p))}
    assert users == {"backbones", "export", "finetune"}


def test_beam_is_imported_in_transforms_and_its_file_systems_alone():
    users = {
        p.relative_to(PACKAGE).parts[:-1]
        for p in MODULES
        if any(n.startswith("apache_beam") for n in imported(p))
    }
    assert users == {("transforms",), ("files",), ("contrib", "augment")}


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
