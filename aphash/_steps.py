"""The steps of a Pipeline in front of a model, as arrays and parameters of a file: nothing is pickled.

Steps that are stateless or linear have a place there. What each of them learned is a few arrays whose shapes follow
from the numbers of columns that come in and go out, which are checked when a file is opened. Matrices lie in memory as
they lay, by rows or by columns: BLAS rounds differently for either, and a loaded Pipeline makes the same codes.
"""

import functools
import importlib
import math

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from aphash._common.arrays import shown

_NUMBER, _IN, _OUT, _OUT_IN = (), ("in",), ("out",), ("out", "in")  # shapes, in columns that come in and go out
_STEPS = {  # class -> its module, and the shapes of what it learns; without "out", as many columns go out as come in
    "Normalizer": ("sklearn.preprocessing", {}),
    "StandardScaler": (
        "sklearn.preprocessing",
        {"mean_": _IN, "var_": _IN, "scale_": _IN, "n_samples_seen_": _NUMBER},
    ),
    "MinMaxScaler": (
        "sklearn.preprocessing",
        {
            "min_": _IN, "scale_": _IN, "data_min_": _IN, "data_max_": _IN, "data_range_": _IN,
            "n_samples_seen_": _NUMBER,
        },
    ),
    "MaxAbsScaler": ("sklearn.preprocessing", {"max_abs_": _IN, "scale_": _IN, "n_samples_seen_": _NUMBER}),
    "RobustScaler": ("sklearn.preprocessing", {"center_": _IN, "scale_": _IN}),
    "PCA": (
        "sklearn.decomposition",
        {
            "components_": _OUT_IN, "mean_": _IN, "explained_variance_": _OUT, "explained_variance_ratio_": _OUT,
            "singular_values_": _OUT, "noise_variance_": _NUMBER, "n_components_": _NUMBER, "n_samples_": _NUMBER,
        },
    ),
    "TruncatedSVD": (
        "sklearn.decomposition",
        {
            "components_": _OUT_IN, "explained_variance_": _OUT, "explained_variance_ratio_": _OUT,
            "singular_values_": _OUT,
        },
    ),
}  # fmt: skip
_NOTHING = "passthrough"


def split(model):
    """Return (steps in front, what is behind them) of a Pipeline; of anything else, (None, model)."""
    return (model.steps[:-1], model.steps[-1][1]) if isinstance(model, Pipeline) else (None, model)


def joined(steps, name, model):
    """Return a Pipeline of steps, (name, step) each, and a model under its name."""
    return Pipeline([*steps, (name, model)])


def to_file(steps):
    """Return (arrays, params) of fitted steps for a file.

    Parameters
    ----------
    steps : list of (str, estimator)

    Raises
    ------
    TypeError
        For a step that is of another class, or has a parameter that is no number, text or tuple of them.
    sklearn.exceptions.NotFittedError
    """
    arrays, params = {}, []
    for number, (name, step) in enumerate(steps):
        if step is None or (isinstance(step, str) and step == _NOTHING):
            params.append({"name": name, "class": _NOTHING})
            continue
        kind = type(step).__name__
        if kind not in _STEPS or type(step) is not _class_of(kind):
            raise TypeError(
                f"the step {name!r}, of class {kind}, cannot be saved without pickle, as {', '.join(_STEPS)} can: "
                "save the pipeline's last step with the index, and joblib.dump(pipeline[:-1], another_path) beside it"
            )
        check_is_fitted(step)
        default = type(step)().get_params()
        given = {key: value for key, value in step.get_params().items() if value is not default[key]}
        if not isinstance(given.get("random_state", 0), int):
            del given["random_state"]  # which has no effect any more
        by_columns = []
        for attribute in _STEPS[kind][1]:
            value = getattr(step, attribute)
            if value is None:  # such as the mean, where it is not taken off
                continue
            arrays[f"{number}.{attribute}"] = value = np.asarray(value)
            if value.ndim == 2 and value.strides[0] < value.strides[1]:
                by_columns.append(attribute)
        params.append(
            {
                "name": name,
                "class": kind,
                "given": {key: _plain(value, f"{kind}.{key} of the step {name!r}") for key, value in given.items()},
                "n_features_in_": int(step.n_features_in_),
                "feature_names_in_": list(getattr(step, "feature_names_in_", [])) or None,
                "by_columns": by_columns,
            }
        )
    return arrays, params


def from_file(arrays, params):
    """Return (steps, columns that come out) as :func:`to_file` wrote them; ValueError when they do not fit.

    KeyError and TypeError when they are no such arrays and parameters.
    """
    steps, columns = [], None
    for number, entry in enumerate(params):
        if entry["class"] == _NOTHING:
            steps.append((entry["name"], _NOTHING))
            continue
        if entry["class"] not in _STEPS:
            raise ValueError(f"a step of class {shown(entry['class'])}, which this aphash does not know; update it")
        step = _class_of(entry["class"])()
        unknown = sorted(set(entry["given"]) - set(step.get_params()))
        if unknown:
            raise ValueError(f"{entry['class']} of this scikit-learn has no {', '.join(unknown)}")
        step.set_params(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry["given"].items()})
        sizes = {"in": int(entry["n_features_in_"])}
        if columns not in (None, sizes["in"]):
            raise ValueError(f"the step {entry['name']!r} takes {sizes['in']} columns, and {columns} come")
        for attribute, shape in _STEPS[entry["class"]][1].items():
            array = arrays.get(f"{number}.{attribute}")
            _check(step, attribute, array, shape, sizes)
            if array is not None and attribute in entry["by_columns"]:
                array = np.asfortranarray(array)
            setattr(step, attribute, array if array is None or array.ndim else array[()])
        step.n_features_in_ = sizes["in"]
        if entry["feature_names_in_"] is not None:
            names = entry["feature_names_in_"]
            if len(names) != sizes["in"] or not all(isinstance(name, str) for name in names):
                raise ValueError(f"feature_names_in_ of the step {entry['name']!r} must be {sizes['in']} strings")
            step.feature_names_in_ = np.array(names, object)
        columns = sizes.get("out", sizes["in"])
        steps.append((entry["name"], step))
    return steps, columns


def _check(step, attribute, array, shape, sizes):
    """Raise ValueError unless an array is of the shape that a step's attribute has; learn the columns that go out."""
    if array is None:
        needed = shape == _OUT_IN or (attribute == "mean_" and "out" in sizes)
        if needed:
            raise ValueError(f"{type(step).__name__} without {attribute}")
        return
    if shape == _OUT_IN and array.ndim == 2:
        sizes["out"] = len(array)
    whole = tuple(sizes[each] for each in shape)
    # StandardScaler counts the rows of each column where some have gaps
    if array.shape != whole and not (attribute == "n_samples_seen_" and array.shape == (sizes["in"],)):
        raise ValueError(f"{type(step).__name__}.{attribute} must have shape {whole}, got {array.shape}")


@functools.cache
def _class_of(kind):
    return getattr(importlib.import_module(_STEPS[kind][0]), kind)


def _plain(value, what):
    """Return a parameter as JSON has it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, tuple):
        return [_plain(each, what) for each in value]
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise TypeError(f"{what} cannot be saved without pickle: expected a number or a text, got {shown(value)}")
