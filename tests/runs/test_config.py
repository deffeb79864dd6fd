"""A run whose flags stand in a file."""

from stores import cli, photos, rows


def test_a_run_by_a_file(tmp_path, capsys):
    folder, file, log = photos(tmp_path / "p", 1), tmp_path / "c.yaml", tmp_path / "run.log"
    file.write_text(f"embed:\n  images: {folder}\n  store: {tmp_path / 's'}\n  log-file: {log}\n")
    assert cli("embed", "--config", file) == 0
    assert len(rows(tmp_path / "s")) == 5
    assert cli("embed", f"--config={file}", "--store", tmp_path / "t", folder / "roses") == 0
    assert len(rows(tmp_path / "t")) == 1
    capsys.readouterr()
    assert cli("embed", "--config", tmp_path / "absent.yaml") == 1
    assert "absent.yaml cannot be read: No such file" in capsys.readouterr().err
