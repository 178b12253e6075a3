"""The file of a model: its parameters, the hash function, and what else a fit found. ``encoder`` reads the hash
function.

Version 1 has the parameters of APHash in ``given``. Version 2 has the fields of a recipe in place of the name of the
mode. Version 3 has the anchors of mode "scores", by which items get their bits. Version 4 has also how many
steps queries take, the kind space of mode "semantic-scores", or items of more than 128 bits that their decoder has to
rebuild.
"""

import numbers

import numpy as np

from aphash._common import container
from aphash._learning import recipe
from aphash._learning.descent import HISTORY
from aphash._learning.encoder import ARRAYS, MODEL, MODEL_VERSION, Encoder, check_version
from aphash._learning.item_encoder import has_later
from aphash._measuring.recall import ExpectedRecall
from aphash.codes import n_words, note_origin

_FLOATS = (np.float32, np.float64, np.float16)
_FITTED = {  # arrays that the hash function does not need: dtypes, and shapes in rows, words, anchors and features
    "codes_": ((np.uint64,), "nw"), "anchors_": (_FLOATS, "md"), "anchor_indices_": ((np.int64,), "m"),
    "anchor_codes_": ((np.uint64,), "mw"), "thresholds_": ((np.float64,), "m"),
}  # fmt: skip
_OF_CODES = ("anchors_", "anchor_codes_", "thresholds_")  # a model of scores has none, or has them in its items


def to_file(given, fitted):
    """Return (arrays, params) for a file.

    Parameters
    ----------
    given : dict
        The parameters of the estimator.
    fitted : dict
        Its fitted attributes.
    """
    items = fitted.get("items_")
    arrays = {name: fitted[name] for name in (*_names(items), *ARRAYS)}
    arrays |= {f"objective_{name}": np.ascontiguousarray(fitted["objective_"][name]) for name in HISTORY.names}
    seed = given["random_state"]
    given = given | {"mode": recipe.to_file(given["mode"])}
    given["n_bits"] = len(fitted["coef_"])  # set_params may have changed it since fit
    given["random_state"] = seed if isinstance(seed, numbers.Integral) else None
    params = {"given": given, "scale_": fitted["scale_"], "n_iter_": int(fitted["n_iter_"])}
    measured = fitted.get("expected_recall_")  # of an earlier version's pickle there is none
    if measured:
        arrays["expected_recall"] = np.stack([measured[k] for k in measured])
        params["expected_recall"] = {"k": list(measured), "n": measured.n, "n_queries": measured.n_queries}
    if items is not None:
        arrays |= {f"items_{name}": each for name, each in items.arrays.items()}
        params["items_"] = items.numbers
    if "feature_names_in_" in fitted:
        params["feature_names_in_"] = list(fitted["feature_names_in_"])
    return arrays, params


def version_of(params):
    """Return the version of a file with these parameters: the first version that has all that is in them."""
    if "items_" in params:
        return MODEL_VERSION if has_later(params["items_"]) else 3
    return 2 if isinstance(params["given"]["mode"], dict) else 1


def _expected_recall(arrays, params):
    """Return the ExpectedRecall of a file; ValueError, KeyError or TypeError where it is not whole."""
    if "expected_recall" not in params:
        return ExpectedRecall()
    about, found = params["expected_recall"], arrays["expected_recall"]
    if found.dtype != np.float64 or found.shape != (len(about["k"]), found.shape[1], 2):
        raise ValueError(f"expected_recall of shape {found.shape} and dtype {found.dtype}")
    return ExpectedRecall(zip(about["k"], found, strict=True), int(about["n"]), int(about["n_queries"]))


def _names(items):
    """Return the names of the arrays that belong neither to the hash function nor to the items."""
    return [name for name in _FITTED if items is None or name not in _OF_CODES]


def from_file(path, arrays, params, version, known):
    """Return (parameters of the estimator, its fitted attributes, its Encoder).

    Parameters
    ----------
    path
        For messages.
    arrays, params : dict
    version : int
    known : collection of str
        The names of the estimator's parameters.

    Raises
    ------
    ValueError
        With the path, for a later version, and where the arrays do not fit each other.
    """
    check_version(path, MODEL, version)
    encoder = Encoder._from_file(path, arrays, params)
    try:
        given = recipe.from_file(params["given"])
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ValueError(f"parameters that this aphash does not know: {', '.join(unknown)}; update it")
        fitted = {name: arrays[name] for name in _names(encoder.items)}
        history = np.empty(len(arrays["objective_round"]), HISTORY)
        for name in HISTORY.names:
            history[name] = arrays[f"objective_{name}"]
        r, d = encoder.coef.shape
        sizes = {"n": len(fitted["codes_"]), "w": n_words(r), "m": len(fitted["anchor_indices_"]), "d": d}
        wrong = [
            name
            for name, (dtypes, shape) in _FITTED.items()
            if name in fitted
            and (fitted[name].shape != tuple(sizes[letter] for letter in shape) or fitted[name].dtype not in dtypes)
        ]
        if wrong or r != given["n_bits"]:
            raise ValueError(f"arrays do not fit each other: {', '.join(wrong) or 'coef_'}")
        fitted |= {
            "coef_": encoder.coef, "intercept_": encoder.intercept, "mean_": encoder.mean, "scale_": encoder.scale,
            "fingerprint_": encoder.fingerprint, "n_iter_": int(params["n_iter_"]), "n_features_in_": d,
            "objective_": history,
        }  # fmt: skip
        fitted["expected_recall_"] = _expected_recall(arrays, params)
        if encoder.items is not None:
            fitted |= {"items_": encoder.items, "anchor_codes_": encoder.items.arrays["codes"]}
        if encoder.feature_names is not None:
            fitted["feature_names_in_"] = encoder.feature_names
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{container.name_of(path)}: not a whole APHash file: {error!r}") from None
    note_origin(fitted["codes_"], r, fitted["fingerprint_"])
    return given, fitted, encoder
