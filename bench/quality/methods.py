"""The methods: a spec such as ``control:n_rounds=4,rotation=random``, the estimator that it names, its words."""

import ast
import contextlib
import inspect

import baselines

import aphash

BASELINES = {
    "random": baselines.RandomProjections,
    "signs": baselines.RawSigns,
    "pca": baselines.PCASigns,
    "itq": baselines.ITQ,
    "sh": baselines.SpectralHashing,
    "agh": baselines.AnchorGraphHashing,
    "control": baselines.Control,
    "means": baselines.NeighborMeans,
    "mean-bits": baselines.MeanBits,
    "full": baselines.FullAffinity,
    "pq": baselines.PQ,
    "opq": baselines.OPQ,
    "rabitq": baselines.RaBitQ,
    "floats": baselines.Floats,
}
OURS = ["aphash-semantic", "aphash-semantic-scores", "aphash-neighbors", "aphash-scores", "aphash-paper"]
BY_WEIGHTS = " by weights"  # behind a spec: the same stored codes, asked by real queries; for the report, not for runs
NAMES = {  # for readers
    "aphash-semantic": "APHash semantic", "aphash-semantic-scores": "APHash semantic-scores",
    "aphash-neighbors": "APHash neighbors",
    "aphash-scores": "APHash scores", "aphash-scores:queries=projections": "APHash scores, by projections",
    "aphash-paper": "APHash paper",
    "random": "random projections", "signs": "sign of the embedding", "pca": "PCA signs", "itq": "ITQ", "sh": "SH",
    "agh": "AGH", "pq": "PQ", "pq:rotated=True": "PQ, rotated",
    "pq:rotated=True,part_bits=4": "PQ of 4 bits, rotated", "opq": "OPQ",
    "rabitq": "RaBitQ", "rabitq:inside=False": "RaBitQ + 8 bytes",
    "floats": "floats, brute force", "full": "full n x n affinity",
}  # fmt: skip


def parse_spec(spec):
    """Return (name, parameters) of "name:parameter=value,...": values are Python literals, or words."""
    name, _, rest = spec.removesuffix(BY_WEIGHTS).partition(":")
    params = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"method {spec!r}: expected parameter=value, got {part!r}")
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
        params[key] = value
    return name, params


class ByProjections(aphash.APHash):
    """Of a model that learned scores, queries as their projections V (q - mu), without the descent on each."""

    def query_projections(self, X):
        return self.decision_function(X)


def make(spec, n_bits, seed, n_jobs):
    """Return the estimator of a spec."""
    name, params = parse_spec(spec)
    if name.startswith("aphash-"):
        mode = name.removeprefix("aphash-")
        estimator = {None: aphash.APHash, "projections": ByProjections}[params.pop("queries", None)]
        own = inspect.signature(aphash.APHash).parameters
        study = {name: value for name, value in params.items() if name not in own}
        if study:  # of the method's parameters, those that only a recipe has
            mode = aphash.Recipe.preset(mode).replace(**study)
        given = {name: value for name, value in params.items() if name in own}
        return estimator(n_bits, mode=mode, random_state=seed, n_jobs=n_jobs, **given)
    if name not in BASELINES:
        raise ValueError(f"unknown method {name!r}: one of {', '.join([*BASELINES, *OURS])}")
    return BASELINES[name](n_bits, random_state=seed, **params)


def control_specs(identity, random, whitened):
    """The specs of controls: numbers of rounds, by rotation, and for a whitened start by its exponent."""
    specs = [f"control:n_rounds={n},rotation=identity" for n in identity]
    specs += [f"control:n_rounds={n},rotation=random" for n in random]
    return specs + [
        f"control:n_rounds={n},rotation=random,whitening={w},last_ridge=0.1" for w in whitened for n in whitened[w]
    ]


def is_control(spec):
    """Whether a method has nothing of APHash's descent: learned codes are compared with these at equal recall."""
    return parse_spec(spec)[0] in ("control", "itq", "means", "mean-bits")


def is_of_sweep(spec):
    """Whether this is one of the runs that differ from the preset in n_neighbors only."""
    name, params = parse_spec(spec)
    return name == "aphash-semantic" and set(params) == {"n_neighbors"}


def queries_of(spec):
    """Return what a method's queries are: bits, weights for bits, or the vectors themselves."""
    if spec.endswith(BY_WEIGHTS):
        return "weights"
    return "floats" if parse_spec(spec)[0] in ("pq", "opq", "rabitq", "floats") else "codes"


def label(spec):
    """Return a method's name for readers."""
    spec = spec.removesuffix(BY_WEIGHTS)
    if spec in NAMES:
        return NAMES[spec]
    name, params = parse_spec(spec)
    if name == "control" and "whitening" in params:
        return f"control, {params['n_rounds']} rounds, whitened {params['whitening']}"
    if name == "control" and set(params) == {"n_rounds", "rotation"}:
        return f"control, {params['n_rounds']} rounds, {params['rotation']}"
    if name == "means":
        return f"ridge to means of {params.get('k', 200)} + ITQ"
    if name == "mean-bits":
        return f"score-aware bits of means of {params.get('k', 200)}"
    if name == "itq" and set(params) == {"n_components"}:
        return f"PCA-{params['n_components']} + projection"
    return f"{NAMES.get(name, name)}, {', '.join(f'{key}={value}' for key, value in params.items())}"


def order_of(spec):
    """Return what sorts methods for readers: by their queries, ours first, then controls, peers and floats."""
    names = ["control", "means", "mean-bits", "itq", "pca", "random", "signs", "sh", "agh", "opq", "pq", "rabitq"]
    names = [*OURS, *names, "floats"]
    name, params = parse_spec(spec)
    number = params.get("n_rounds", params.get("n_components", params.get("k", 0)))
    first = names.index(name) if name in names else len(names)
    return queries_of(spec) != "codes", first, params.get("rotation") == "identity", number, spec
