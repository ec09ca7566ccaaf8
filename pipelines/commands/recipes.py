"""``beit3 recipes``: the recipes that come with the package."""

from rich.table import Table

from pipelines.builtin_recipes import FOLDER, builtin_recipes
from pipelines.commands.options import console, say


def recipes() -> None:
    """List the built-in recipes. `beit3 run NAME` and `beit3 plan NAME` take such a name.

    Example: beit3 recipes
    """
    table = Table("recipe", "what it is", title="built-in recipes", title_justify="left")
    for name, recipe in builtin_recipes().items():
        table.add_row(name, recipe.summary)
    console.print(table)
    say(f"files: {FOLDER}")
