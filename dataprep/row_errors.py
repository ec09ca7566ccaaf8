"""An input that ends as a reject, with a reason of its own."""


class RowError(ValueError):
    """An input that cannot be used.

    Args:
        reason: a constant of the module that raises it; rejects are counted by it.
        detail: what exactly was wrong, for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
