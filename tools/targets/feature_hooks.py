"""Features of a dictionary read and edited inside a running model: its input is encoded, its output moved by what changed."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.features.dictionary import Dictionary
from neuronaut.tools.features.places import Place
from neuronaut.tools.targets.base import Edit, Fingerprint, ModelSpec, Site
from neuronaut.tools.targets.hooks import Removable, RemovedTogether, Visit, before, edited
from neuronaut.tools.targets.layers import Layer, gain_of
from neuronaut.tools.targets.load import dictionary_named

SMALLEST_GAIN = 1e-6
_SAME_MODEL = {"gpt2-small": "gpt2"}  # names that SAELens and the hub give to one model


@dataclass(frozen=True)
class Attached:
    """A dictionary in its model: layers and hook are the target's."""

    dictionary: Dictionary
    spec: ModelSpec
    layers: Sequence[Layer]
    hook: Callable[[Site, Visit], Removable]

    def hooked(self, columns: Sequence[int] | None, visit: Visit) -> Removable:
        """Calls `visit` with the features (batch, pos, width or n_columns), and lets the output follow what it returns."""
        dictionary, changes = self.dictionary, list[Tensor]()

        def encoded(value: Tensor) -> Tensor | None:
            x = self._taken(value)
            features = dictionary.encode(x, columns)
            new = visit(features)
            return None if new is features else dictionary.change(x, new - features, columns)

        def read(value: Tensor) -> Tensor:
            if (change := encoded(value)) is not None:
                changes.append(change)
            return value

        def write(value: Tensor) -> Tensor:
            return self._moved(value, changes.pop()) if changes else value

        def both(value: Tensor) -> Tensor:
            change = encoded(value)
            return value if change is None else self._moved(value, change)

        if not dictionary.is_transcoder:
            return self._at(dictionary.layout.reads, both)
        return RemovedTogether((self._at(dictionary.layout.reads, read), self._at(dictionary.layout.writes, write)))

    def _at(self, place: Place, visit: Visit) -> Removable:
        layer = self.layers[place.layer]
        if place.name == "resid_mid":
            assert layer.mlp_norm is not None
            return before(layer.mlp_norm, visit)
        if place.name == "mlp_in":
            return before(layer.weights.original_component, visit)
        return self.hook(Site(place.name, place.layer), visit)

    def _taken(self, value: Tensor) -> Tensor:
        """(batch, pos, d_in) what the dictionary encodes of an activation."""
        place = self.dictionary.layout.reads
        if place.name == "heads":
            return value.flatten(-2) if place.head is None else value[:, :, place.head]
        if place.detail == "normalized":
            norm = self.layers[place.layer].mlp_norm
            assert norm is not None
            return value.float() / gain_of(norm, self.spec.d_model)
        return value

    def _moved(self, value: Tensor, change: Tensor) -> Tensor:
        """The activation where the dictionary writes, with a change (batch, pos, d_out) of its output."""
        place = self.dictionary.layout.writes
        if place.name == "heads" and place.head is not None:
            moved = value.clone()
            moved[:, :, place.head] += change.to(value.dtype)
            return moved
        return value + change.reshape(value.shape).to(value.dtype)


def visits(edits: Sequence[Edit], read: Collection[Site], name: str, found: dict[Site, Tensor]) -> "Features":
    """What is done to the features of one dictionary in a run: its edits in order, then what is read of them."""
    edits = [edit for edit in edits if edit.site.dictionary == name]
    wanted = [site for site in read if site.dictionary == name]
    whole = any(edit.index is None for edit in edits) or any(not site.columns for site in wanted)
    named = {edit.index for edit in edits if edit.index is not None}.union(*(site.columns for site in wanted))
    columns = None if whole else sorted(named)
    return Features(edits, wanted, columns, found)


@dataclass(frozen=True)
class Features:
    """Edits of features and what is read of them; columns: those that are encoded at all, None for all."""

    edits: Sequence[Edit]
    read: Sequence[Site]
    columns: Sequence[int] | None
    found: dict[Site, Tensor]

    def visit(self, value: Tensor) -> Tensor:
        """The features with the edits made; what is read is kept."""
        for edit in self.edits:
            index = None if edit.index is None else self._place(edit.index)
            value = edited(value, replace(edit, index=index))
        for site in self.read:
            kept = value[..., [self._place(column) for column in site.columns]] if site.columns else value
            self.found[site] = kept
        return value

    def _place(self, column: int) -> int:
        return column if self.columns is None else self.columns.index(column)


def check_features(
    dictionaries: Mapping[str, Dictionary], read: Collection[Site], edits: Sequence[Edit], *, last: int
) -> None:
    """Refuses features that do not exist, and those that write behind the layers that are run."""
    for site in (*read, *(edit.site for edit in edits)):
        if site.name != "features":
            continue
        dictionary = dictionary_named(dictionaries, site.dictionary)
        if site.layer != dictionary.layer:
            raise ToolRefused(f"{site} does not exist: {site.dictionary} reads layer {dictionary.layer}")
        if strange := [column for column in site.columns if not 0 <= column < dictionary.width]:
            raise ToolRefused(f"index {strange[0]} does not exist: {site} has indices 0 to {dictionary.width - 1}")
    for edit in edits:
        if edit.site.name != "features":
            continue
        dictionary = dictionaries[edit.site.dictionary]
        if edit.site.columns:
            raise ToolRefused(f"an edit of {edit.site} names its feature by index, not by columns")
        if edit.index is not None and not 0 <= edit.index < dictionary.width:
            raise ToolRefused(f"index {edit.index} does not exist: {edit.site} has indices 0 to {dictionary.width - 1}")
        if dictionary.layout.writes.layer >= last:
            raise ToolRefused(f"{edit.site} writes in layer {dictionary.layout.writes.layer}, which is not run")


def check_fits(
    dictionary: Dictionary, spec: ModelSpec, fingerprint: Callable[[], Fingerprint], layers: Sequence[Layer]
) -> None:
    """Refuses a dictionary of another model, of a layer that does not exist, of another width, or in a place that it lacks."""
    layout, name = dictionary.layout, dictionary.name
    if layout.weights_sha256 is not None:
        own = fingerprint().weights_sha256
        if layout.weights_sha256 != own:
            raise UserError(
                f"dictionary {name!r} was made for a model with weights {layout.weights_sha256[:12]}, and {spec.name} has "
                f"{own[:12]}: its features mean nothing here; give the model that it was made for"
            )
    elif layout.model_name is not None and _plain(layout.model_name) != _plain(spec.name):
        raise UserError(
            f"dictionary {name!r} was made for {layout.model_name!r} and not for {spec.name!r}: give that model, or write "
            "its name here as model_name into cfg.json if it is the same one"
        )
    for place, width, verb in ((layout.reads, layout.d_in, "reads"), (layout.writes, layout.d_out, "writes")):
        if place.layer >= spec.n_layers:
            raise UserError(
                f"dictionary {name!r} {verb} {place}, but {spec.name} has layers 0 to {spec.n_layers - 1}: "
                "give the model that it was made for"
            )
        if width != (own_width := _width(spec, place)):
            raise UserError(
                f"dictionary {name!r} {verb} {width} numbers at {place}, where {spec.name} has {own_width}: "
                "give the model that it was made for"
            )
        if fault := _fault(place, layers[place.layer], spec):
            raise UserError(f"dictionary {name!r} cannot be used with {spec.name}: {fault}")


def _plain(name: str) -> str:
    last = name.rstrip("/").rpartition("/")[2].lower()
    return _SAME_MODEL.get(last, last)


def _width(spec: ModelSpec, place: Place) -> int:
    if place.name == "heads":
        return spec.d_head if place.head is not None else spec.n_heads * spec.d_head
    return spec.d_mlp if place.name == "neurons" else spec.d_model


def _fault(place: Place, layer: Layer, spec: ModelSpec) -> str | None:
    """Why a place is not what its hook name means in this model, None where it is."""
    if place.head is not None and place.head >= spec.n_heads:
        return f"it reads head {place.head}, and a layer has heads 0 to {spec.n_heads - 1}"
    if place.name == "neurons" and layer.experts is not None:
        return f"the neurons of layer {place.layer} belong to experts, each of which would need a dictionary of its own"
    if place.name == "resid_mid" and spec.parallel:
        return f"attention and MLP of layer {place.layer} read the same residual: there is none between them"
    if place.detail == "bare" and (layer.post_norm if place.name == "mlp_out" else layer.attn_post_norm) is not None:
        return (
            f"it stands before the norm that follows {place}, where nothing can be put; hook_{place.name} is behind it"
        )
    if place.name not in ("resid_mid", "mlp_in"):
        return None
    if layer.mlp_norm is None:
        return f"no norm stands before the MLP of layer {place.layer}, so that {place} is not known"
    if place.detail == "normalized":
        if isinstance(layer.mlp_norm, nn.LayerNorm):
            return (
                "ln2.hook_normalized is before or after the gain of a LayerNorm, depending on the version: write "
                "blocks.N.mlp.hook_in into cfg.json for what enters the MLP"
            )
        if float(gain_of(layer.mlp_norm, spec.d_model).abs().min()) < SMALLEST_GAIN:
            return f"the gain of the norm before the MLP of layer {place.layer} is 0 somewhere, so that {place} is not known"
    return None
