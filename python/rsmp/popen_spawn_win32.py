"""Present because the standard package has it; rsmp runs on Linux."""

__all__: list[str] = []
