"""What can go wrong, one class per exit code of the `codec` command. Messages are one line and say what to do."""


def install(extras: str) -> str:
    """What to type where a package is missing: ours is on no index."""
    return f"pip install -e '.[{extras}]' in the clone of narrowbit"


class CodecError(Exception):
    """Anything the codec refuses to do."""

    exit_code = 1


class BadInput(CodecError):
    """The picture, or the place it is to be written to, cannot be used."""


class NotMLIC(CodecError):
    """The data does not begin with the MLIC signature."""

    exit_code = 3


class UnsupportedVersion(CodecError):
    """An MLIC file, but of a version or with a feature that this release does not know."""

    exit_code = 3


class UnknownModel(CodecError):
    """The file names a model that is not installed, or no model of the given name exists."""

    exit_code = 4


class Corrupt(CodecError):
    """An MLIC file that was damaged or cut short."""

    exit_code = 5


class OutOfReach(CodecError):
    """No rate level gives the size or the quality asked for."""

    exit_code = 6
