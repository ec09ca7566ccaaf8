"""The networks in an output, as ``beit3 inspect`` shows them: checkpoints and exports."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.table import Table

from pipelines.commands.options import console, say

if TYPE_CHECKING:
    from orchestration.manifest import Manifest
    from orchestration.storage.store import Store
    from pipelines.report.outputs.norms import PartNorm

NETWORK_FILE: Final = "network.json"
"Configuration of a network in a checkpoint or export."


def show_networks(folder: "Store", manifest: "Manifest", damaged: set[str]) -> None:
    """Show the checkpoints and the exports among the files of an output, but for damaged ones."""
    from orchestration.checkpoint_files import is_checkpoint_name
    from orchestration.errors import ManifestError
    from pipelines.report.outputs.norms import WEIGHTS_FILE

    for file in manifest.files:
        name, _, last = file.path.rpartition("/")
        if not name or last != NETWORK_FILE or any(p.startswith(f"{name}/") for p in damaged):
            continue
        network = folder.sub(name)
        try:
            if is_checkpoint_name(network.name):
                show_checkpoint(network)
            elif network.exists(WEIGHTS_FILE):
                _refuse_changed(folder, manifest, {file.path, f"{name}/{WEIGHTS_FILE}"})
                _show_export(network)
        except ManifestError as error:
            say(f"damaged: {error}")


def _refuse_changed(folder: "Store", manifest: "Manifest", paths: set[str]) -> None:
    """Raise ManifestError if a file that is shown has another digest than in the manifest."""
    from orchestration.dataset import REPAIR
    from orchestration.errors import ManifestError
    from orchestration.manifest import file_of

    for file in manifest.files:
        if file.path in paths and file_of(folder, file.path) != file:
            where = folder.uri_of(file.path)
            raise ManifestError(f"{where}: content differs from the manifest; {REPAIR}")


def show_checkpoint(checkpoint: "Store") -> None:
    """Show step, configuration and norms of a checkpoint.

    Raises:
        ManifestError: it is not whole.
    """
    from orchestration.checkpoint_files import step_of
    from pipelines.report.outputs.norms import network_tensors, part_norms

    norms = part_norms(network_tensors(checkpoint))
    say(f"{checkpoint.uri}: whole, step {step_of(checkpoint)}")
    if checkpoint.exists(NETWORK_FILE):
        _show_configuration(checkpoint)
    _show_norms(norms)


def _show_export(export: "Store") -> None:
    from pipelines.report.outputs.norms import exported_tensors, part_norms

    norms = part_norms(exported_tensors(export))
    say(f"{export.uri}: exported network")
    _show_configuration(export)
    _show_norms(norms)


def _show_configuration(folder: "Store") -> None:
    say(" ".join(folder.read(NETWORK_FILE).decode(errors="replace").split()))


def _show_norms(norms: "Sequence[PartNorm]") -> None:
    table = Table("part", title="parameters", title_justify="left")
    for column in ("number", "L2 norm", "largest", "not finite"):
        table.add_column(column, justify="right")
    for each in norms:
        counts = f"{each.num_parameters:,}", f"{each.norm:.4g}", f"{each.largest:.4g}"
        table.add_row(each.part, *counts, str(each.num_not_finite or ""))
    table.add_section()
    norm = sum(each.norm**2 for each in norms) ** 0.5
    table.add_row("all", f"{sum(each.num_parameters for each in norms):,}", f"{norm:.4g}", "", "")
    console.print(table)
