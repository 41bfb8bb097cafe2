"""The errors of this package that a user can mend."""


class UpsamplerError(ValueError):
    """An upsampler's name, its checkpoint or its inputs cannot be used; the message says what to do."""


class WeightFileError(UpsamplerError):
    """A weight file cannot be used."""
