"""Checks folders that score tables are written into."""

from __future__ import annotations

from beam_flowers import files
from beam_flowers.errors import OutputError
from beam_flowers.images.outputs import Writing, recognised
from beam_flowers.store.commits import latest, require_outer_table
from beam_flowers.store.names import COMMITS, DAMAGED, REJECTS, RETIRED, WORK, is_part

TABLE = "a table of scores"


def check_table_folder(output: str, writing: Writing) -> None:
    """Checks that a table may be written into a folder.

    Raises:
        OutputError: if the folder holds things that must stay.
        StoreError: if the name is one that stores use for themselves.
    """
    uri = files.absolute(output)
    writing.refuse_input(uri)
    require_outer_table(uri)
    if files.is_folder(uri) and any(files.list_folder(uri)) and not recognised(_is_table, uri):
        # Readers would take all files of the folder for parts of the table.
        raise OutputError(
            f"{output!r} holds other things and is no table: a table needs a folder of its own, "
            "also with --overwrite; name a new or empty one"
        )
    writing.check_folder(output, TABLE, _is_table_name, _is_table)


def _is_table_name(name: str) -> bool:
    own = (COMMITS, WORK, REJECTS, RETIRED, DAMAGED)
    return name in own or name.startswith("label=") or is_part(name)


def _is_table(folder: str) -> bool:
    """Tells if a folder is a score table or the beginning of one."""
    sections = latest(folder).sections
    return "" in sections or (not sections and files.is_folder(files.join(folder, WORK)))
