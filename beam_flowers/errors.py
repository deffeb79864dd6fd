"""Defines the errors that a user can mend, under one base class."""


class BeamFlowersError(Exception):
    """Is the base of all errors raised for a user; the command line prints it and exits with 1."""

    def __str__(self) -> str:
        # Further arguments are fields of subclasses, kept in `args` so that they are pickled.
        return str(self.args[0]) if self.args else ""


class InputError(BeamFlowersError):
    """Names images, manifests or options that cannot be used as given."""


class OutputError(InputError):
    """Names an output that would replace a file that must stay, or has an unknown format.

    The command line exits with 2.
    """


class HeaderError(InputError):
    """Names a list of images whose columns are not known. The command line exits with 2."""


class BackboneError(BeamFlowersError):
    """Names a backbone that is unknown, absent, damaged or another than was asked for."""


class StoreError(BeamFlowersError):
    """Names a store or table that cannot be read or written."""


class FieldError(BeamFlowersError):
    """A file that holds something else than this program writes, as it is damaged or foreign.

    Raised as one of its subclasses, which are also the errors of what the file is a part of.

    Attributes:
        file: its address.
        field: the place in it, as in `sections['backbone=a-01234567'].parts[3].name`; empty where
            it is the file as a whole.
    """

    def __init__(self, message: str, file: str = "", field: str = "") -> None:
        # All arguments, so that it can be pickled on its way from a worker.
        super().__init__(message, file, field)
        self.file = file
        self.field = field


class StoreFieldError(FieldError, StoreError):
    """A file of a store or table that holds something else than this program writes."""


class BackboneFieldError(FieldError, BackboneError):
    """A file of a backbone that holds something else than a network can be built from."""


class InputFieldError(FieldError, InputError):
    """A file given by the user that holds something else than can be used."""


class UnreachableError(BeamFlowersError):
    """Names a server that does not answer. The file is not at fault, so the run ends."""


class WorkerError(BeamFlowersError):
    """Names a worker that differs from the driver: other versions, another store, no weights."""


class PartLostError(StoreError):
    """Names a file of a commit that is gone."""


class PartDamagedError(PartLostError):
    """Names a part whose bytes have changed since they were written.

    Attributes:
        root: folder of the table.
        name: of the part.
    """

    def __init__(self, message: str, root: str = "", name: str = "") -> None:
        # All arguments, so that it can be pickled on its way from a worker.
        super().__init__(message, root, name)
        self.root = root
        self.name = name


class ModelError(BeamFlowersError):
    """Names a model that cannot be read or does not fit the vectors."""


class ModelFieldError(FieldError, ModelError):
    """A file of a model that holds something else than this program writes."""


class TrainingError(BeamFlowersError):
    """Names vectors and labels from which no head can be trained."""


class ImageError(BeamFlowersError):
    """Names one image that cannot be used; it becomes a `Reject` and never ends a run.

    Attributes:
        error_class: stable name of the failure, for example `Truncated`.
        message: one line for people, free of memory addresses and temporary paths.
        stage: of the reject.
    """

    def __init__(self, error_class: str, message: str, stage: str = "decode") -> None:
        super().__init__(error_class, message, stage)
        self.error_class = error_class
        self.message = message
        self.stage = stage

    def __str__(self) -> str:
        return f"{self.error_class}: {self.message}"
