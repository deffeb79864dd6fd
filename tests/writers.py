"""Writers to a store, with rows made up on the spot."""

from contextlib import closing
from dataclasses import replace

import numpy as np

from beam_flowers.records import Embedding, Image, Reject
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.commits import Section, committed, latest
from beam_flowers.store.ledger import Ledger, Rules
from beam_flowers.store.outcomes import Outcome
from beam_flowers.store.parts import RejectRows, read_part, write_part
from beam_flowers.store.plan import fill_ledger, finish, make_plan
from beam_flowers.store.schema import rejects_table

FINGERPRINT, OTHER = "cd" * 32, "ef" * 32


def image(name, root="/r", size=10, modified=1):
    return Image(f"{root}/{name}", root, name, "rose", None, size, modified)


def embedding(found, dim=2):
    digest = found.uri.encode().hex()[-64:].rjust(64, "0")
    vector = np.frombuffer(digest.encode()[-4 * dim :], np.uint8)[:dim].astype(np.float32)
    return Embedding(found, digest, 40, 30, "JPEG", vector)


class Writer:
    """One run that writes to a store."""

    def __init__(self, folder, run, name="tiny", fingerprint=FINGERPRINT):
        place, self.kind = store_place(str(folder), name, fingerprint)
        self.place = replace(place, run=run)
        self.name = name

    def rows(self, *images):
        return write_part(self.place, self.kind, self.kind.table([embedding(i) for i in images]))

    def rejects(self, *images):
        found = [Reject(i, "decode", "Truncated", "it ends early") for i in images]
        return write_part(self.place, RejectRows(), rejects_table(found))

    def append(self, *images):
        append_parts(self.place, self.kind, {}, [self.rows(*images)])
        return self

    def plan(self, *found, rules=None, encoding="split"):
        """A plan on the newest version, made and written as the workers do."""
        base = latest(self.place.root)
        with closing(Ledger()) as ledger:
            ledger.list_found(found)
            lost = fill_ledger(ledger, self.place, base)
            about = {"name": self.name, "encoding": encoding}
            section = Section(self.place.fingerprint, about)
            return make_plan(
                ledger, self.place, base, self.kind, section, rules or Rules(), lost=lost
            )

    def finish(self, plan, *parts):
        return finish(plan, [Outcome((part,), computed=part.rows) for part in parts])


class Table:
    def __init__(self, folder):
        self.root = str(folder / "store")
        self.runs = 0

    def writer(self, name="tiny", fingerprint=FINGERPRINT):
        self.runs += 1
        return Writer(self.root, f"{self.runs:016x}", name, fingerprint)

    def append(self, *images):
        return self.writer().append(*images)

    @property
    def section(self):
        return committed(latest(self.root), self.writer().place)

    def uris(self):
        place = self.writer().place
        found = [u for p in self.section.parts for u in read_part(place, p.name)["uri"].to_pylist()]
        assert len(found) == len(set(found)), "a file has two rows"
        return sorted(found)


def fresh_hash(folder, *images):
    """The hash of a store that has these rows from one commit."""
    fresh = Table(folder / "fresh")
    fresh.append(*images)
    return fresh.section.dataset_hash
