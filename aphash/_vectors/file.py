"""The file of a VectorIndex: encoder, codes, kept vectors, what was measured, parameters. Needs numpy only."""

import numbers

from aphash._common import container
from aphash._learning import recipe
from aphash._learning.encoder import ARRAYS, Encoder
from aphash._learning.item_encoder import has_later
from aphash._searching import index_file
from aphash._searching.calibration import Calibration
from aphash._searching.kept import KeptVectors
from aphash._vectors.state import State
from aphash.index import HammingIndex

KIND, VERSION = "VectorIndex", 2  # 2: the model has numbers that files of version 1 do not


def to_file(state, given):
    """Return (arrays, params) of a state, and of the parameters that were given to the index, by name."""
    snapshot = state.codes._store.present
    parts = {
        "encoder": _encoder_to_file(state.encoder),
        "index": index_file.to_file(snapshot),
        "calibration": state.calibration.to_file(),
    }
    if state.kept is not None:
        parts["kept"] = state.kept.to_file(snapshot.load_ids(0, len(snapshot)))
    seed = given["random_state"] if isinstance(given["random_state"], numbers.Integral) else None
    given = given | {"mode": recipe.to_file(given["mode"]), "metric": state.metric, "random_state": seed}
    arrays = {f"{part}.{name}": each for part, (own, _) in parts.items() for name, each in own.items()}
    return arrays, {"given": given, **{part: params for part, (_, params) in parts.items()}}


def version_of(params):
    """Return the version of a file with these parameters: the first version that has all that is in them."""
    return VERSION if has_later(params["encoder"].get("items_", ())) else 1


def from_file(make, path, arrays, params, version, check):
    """Return an index, which ``make(**given)`` makes and checks, and its state.

    OSError or ValueError with the path when the file is not whole.
    """
    name = container.name_of(path)
    if not 1 <= version <= VERSION:
        raise ValueError(f"{name}: version {version} of such a file; this aphash reads up to {VERSION}")
    parts = {part: {} for part in ("encoder", "index", "calibration", "kept")}
    for full, each in arrays.items():
        part, _, own = full.partition(".")
        parts.setdefault(part, {})[own] = each
    try:
        index = make(**recipe.from_file(params["given"]))
        encoder = Encoder._from_file(path, parts["encoder"], params["encoder"])
        own = path, parts["index"], params["index"], index_file.VERSION
        codes = HammingIndex._of(index_file.from_file(*own, check))
        kept = None
        if "kept" in params:
            kept = KeptVectors.from_file(path, parts["kept"], params["kept"], *own[1:])
        measured = Calibration.from_file(parts["calibration"], params["calibration"])
        if codes.n_bits != encoder.n_bits or codes.fingerprint not in (None, encoder.fingerprint):
            raise ValueError("the codes are those of another model")
        if kept is not None and (len(kept) != len(codes) or kept.n_features != encoder.n_features):
            raise ValueError("the vectors are not those of the codes")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if str(error).startswith(name):
            raise
        raise ValueError(f"{name}: not a whole VectorIndex: {error!r}") from None
    return index, State(encoder, codes, kept, None, measured, index.metric)


def _encoder_to_file(encoder):
    """Return (arrays, params) that :meth:`Encoder._from_file` takes."""
    arrays = {name: getattr(encoder, name.rstrip("_")) for name in ARRAYS}
    params = {"scale_": encoder.scale, "fingerprint_": encoder.fingerprint, "given": {"n_jobs": encoder.n_jobs}}
    if encoder.items is not None:
        arrays |= {f"items_{name}": each for name, each in encoder.items.arrays.items()}
        params["items_"] = encoder.items.numbers
    if encoder.feature_names is not None:
        params["feature_names_in_"] = list(encoder.feature_names)
    return arrays, params
