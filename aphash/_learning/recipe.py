"""How a fit is done: all parameters of the method, each beside its check, and the presets."""

import numbers
from dataclasses import dataclass, field, fields, replace

import numpy as np

from aphash._common.arrays import shown
from aphash.codes import check_n_bits

# -- checks of a value: TypeError or ValueError with the parameter's name, unless it is good or one of the words ------


def _or(words):
    return "".join(f" or {word!r}" for word in words)


def _integer(low):
    def check(name, value, words=()):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"{name} must be an integer{_or(words)}, got {shown(value)}")
        if value < low:
            raise ValueError(f"{name} must be at least {low}, got {value}")

    return check


def _real(low, strict=False, also=()):
    def check(name, value, words=()):
        if isinstance(value, str) and value in also:
            return
        expected = f"a finite number {'above' if strict else 'of at least'} {low}{_or((*words, *also))}"
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} must be {expected}, got {shown(value)}")
        if not np.isfinite(value) or value < low or (strict and value == low):
            raise ValueError(f"{name} must be {expected}, got {shown(value)}")

    return check


def _count_or_share(name, value, words=()):
    if isinstance(value, float | np.floating):
        if not 0 < value <= 1:
            raise ValueError(f"{name} as a share of the rows must be in (0, 1], got {value!r}")
    else:
        _integer(1)(name, value, words)


def _one_of(*choices):
    def check(name, value, words=()):
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, (*choices, *words)))}, got {shown(value)}")

    return check


def _boolean(name, value, words=()):
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be a bool{_or(words)}, got {shown(value)}")


def _parameter(default, check):
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How :class:`aphash.APHash` learns: every parameter of the method, those that only study it among them.

    ``APHash(mode=recipe)`` takes a recipe in place of a preset's name. The presets are recipes themselves; the usual
    way to a new one is to change a few fields of one of them. A recipe cannot be changed, so estimators may share it.

    Parameters
    ----------
    n_anchors : int, default=300
        m, or the number of training rows where that is less.
    n_neighbors : int or float, default=0.005
        k of the thresholds; a float is a share of the training rows. At most a quarter of the rows.
    min_neighbors : int, default=100
        The least k that a share gives.
    q_scale : float, default=1.0
        s in q ~ (1 + g/s)^-a, in bits.
    q_scale_per_bit : float, default=0.0
        Where it is not 0, s is this times n_bits.
    q_power : float, default=2.0
        a.
    quantization : float, default=0.0
        lambda, the weight of the quantisation loss J1.
    quantization_per_anchor : float, default=0.3
        Where it is not 0, lambda is this times n_anchors: J0 is a sum over anchors, and J1 a mean.
    ridge, last_ridge : float or "gcv", default=0.01 and 0.1
        alpha of the hash function, as a share of the mean eigenvalue of [X, 1]^T [X, 1]; in the last round.
    n_rounds : int, default=9
    max_iter : int, default=5
        Iterations of a round, at most; 0: rotation and re-projection alone.
    learning_rate : float, default=0.1
        Of the first iteration of a round.
    init : {"itq", "random"}, default="itq"
        Codes to begin with: principal directions, rotated towards signs; or random numbers.
    whitening : float, default=0.75
        With ``init="itq"``: the principal directions are divided by their deviations to this power.
    rotation : {"random", "identity", "none"}, default="random"
        What the rotation towards signs after each round starts from; "none": there is none.
    hash_target : {"sign", "real"}, default="sign"
        What the hash function is fitted to: signs, or the relaxed codes in all rounds but the last.
    fit_hash : {"all", "anchors"}, default="all"
        Fit it on all training rows, or on the anchors alone.
    updates : {"together", "alternating"}, default="together"
        Move H and B at once, or each with the other fixed.
    resample_anchors : bool, default=True
        Draw anchors afresh in each round.
    tol : float, default=0.0
        Stop a round when J falls by less than this share over 10 iterations; 0: never.
    objective : {"codes", "scores"}, default="codes"
        What is learned: codes on both sides; or real weights for queries and bits for items, so that scores rank as
        distances do. "scores" uses n_anchors, n_neighbors (199 of the anchors; their perplexity is a quarter of it),
        n_rounds, max_iter (steps for the weights), learning_rate and quantization (how much an item's bits have to
        rebuild it) and no others.
    goal : {"kind", "neighbors"}, default="kind"
        What the codes are for: that items of the same kind get near codes, or that the true nearest neighbours do.
        Learned codes are checked for it. Learned scores rank as distances of the vectors do with "neighbors", and with
        "kind" as the angles between projections that mode "semantic" learns, twice as many as there are bits.

    Raises
    ------
    TypeError, ValueError
        When a field is not as above; the message names it.

    Notes
    -----
    The defaults are those of ``mode="semantic"``. Recipes with equal fields are equal. ``repr`` names the fields that
    differ from the defaults, ``print`` all of them.

    References
    ----------
    Chen, Wang, Cheung: Anchor-based Probability Hashing, 2018.

    Examples
    --------
    >>> from aphash import APHash, Recipe
    >>> recipe = Recipe.preset("semantic").replace(init="random", rotation="none")
    >>> recipe
    Recipe(init='random', rotation='none')
    >>> APHash(32, mode=recipe)
    APHash(mode=Recipe(init='random', rotation='none'), n_bits=32)
    """

    __module__ = "aphash"  # where it is public: pickles and reprs say so

    n_anchors: int = _parameter(300, _integer(1))
    n_neighbors: int | float = _parameter(0.005, _count_or_share)
    min_neighbors: int = _parameter(100, _integer(1))
    q_scale: float = _parameter(1.0, _real(0, strict=True))
    q_scale_per_bit: float = _parameter(0.0, _real(0))
    q_power: float = _parameter(2.0, _real(0, strict=True))
    quantization: float = _parameter(0.0, _real(0))
    quantization_per_anchor: float = _parameter(0.3, _real(0))
    ridge: float | str = _parameter(0.01, _real(0, also=("gcv",)))
    last_ridge: float | str = _parameter(0.1, _real(0, also=("gcv",)))
    n_rounds: int = _parameter(9, _integer(1))
    max_iter: int = _parameter(5, _integer(0))
    learning_rate: float = _parameter(0.1, _real(0, strict=True))
    init: str = _parameter("itq", _one_of("itq", "random"))
    whitening: float = _parameter(0.75, _real(0))
    rotation: str = _parameter("random", _one_of("random", "identity", "none"))
    hash_target: str = _parameter("sign", _one_of("sign", "real"))
    fit_hash: str = _parameter("all", _one_of("all", "anchors"))
    updates: str = _parameter("together", _one_of("together", "alternating"))
    resample_anchors: bool = _parameter(True, _boolean)
    tol: float = _parameter(0.0, _real(0))
    objective: str = _parameter("codes", _one_of("codes", "scores"))
    goal: str = _parameter("kind", _one_of("kind", "neighbors"))

    def __post_init__(self):
        for each in fields(self):
            each.metadata["check"](each.name, getattr(self, each.name))

    def __repr__(self):
        changed = {name: value for name, value in self.as_dict().items() if value != _DEFAULTS.get(name)}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def __str__(self):
        values = self.as_dict()
        width = max(map(len, values))
        return "\n".join([type(self).__name__, *(f"  {name:{width}}  {value!r}" for name, value in values.items())])

    @classmethod
    def preset(cls, name):
        """Return the recipe that a mode is.

        Parameters
        ----------
        name : {"semantic", "neighbors", "paper", "scores", "semantic-scores"}

        Returns
        -------
        Recipe

        Raises
        ------
        ValueError
            For another name.

        Examples
        --------
        >>> from aphash import Recipe
        >>> Recipe.preset("paper").updates
        'alternating'
        """
        _one_of(*PRESETS)("name", name)
        return PRESETS[name]

    def replace(self, **changes):
        """Return a recipe in which some fields have other values.

        Parameters
        ----------
        **changes
            Fields and their values.

        Returns
        -------
        Recipe

        Raises
        ------
        TypeError
            For a field that there is not, and as the class.
        ValueError
            As the class.

        Examples
        --------
        >>> from aphash import Recipe
        >>> Recipe.preset("neighbors").replace(n_rounds=2).n_rounds
        2
        """
        return replace(self, **changes)

    def as_dict(self):
        """Return a dict of all fields.

        Returns
        -------
        dict of str to int, float, str or bool

        Examples
        --------
        >>> from aphash import Recipe
        >>> Recipe(**Recipe.preset("paper").as_dict()) == Recipe.preset("paper")
        True
        """
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings(Recipe):
    """A recipe of which nothing is left to resolve, for so many bits: every number is as it is used."""

    n_bits: int = field(metadata={"check": lambda name, value: check_n_bits(value)})


SCORES_USE = ("n_anchors", "n_neighbors", "n_rounds", "max_iter", "learning_rate", "quantization")
CHECKS = {each.name: each.metadata["check"] for each in fields(Recipe)}
_DEFAULTS = {each.name: each.default for each in fields(Recipe)}

PRESETS = {  # how they were chosen: docs/DESIGN.md
    "semantic": Recipe(),
    "neighbors": Recipe(
        min_neighbors=50, q_scale_per_bit=1 / 8, q_power=4.0, last_ridge=0.01, n_rounds=8, max_iter=10,
        learning_rate=0.05, whitening=0.0, rotation="identity", hash_target="real", goal="neighbors",
    ),
    "paper": Recipe(
        n_anchors=500, n_neighbors=0.05, min_neighbors=1, q_power=1.0, quantization=0.3, quantization_per_anchor=0.0,
        last_ridge=0.01, n_rounds=1, max_iter=500, learning_rate=0.05, init="random", whitening=0.0, rotation="none",
        fit_hash="anchors", updates="alternating", resample_anchors=False, tol=1e-4,
    ),
    "scores": Recipe(
        objective="scores", n_anchors=20_000, n_neighbors=199, min_neighbors=1, quantization=0.0075,
        quantization_per_anchor=0.0, n_rounds=1, max_iter=100, learning_rate=0.03, goal="neighbors",
    ),
}  # fmt: skip
PRESETS["semantic-scores"] = PRESETS["scores"].replace(goal="kind")


def recipe_of(mode):
    """Return the recipe that a mode is: a preset's name, or a recipe itself; ValueError otherwise."""
    if isinstance(mode, Recipe):
        return mode
    if not isinstance(mode, str) or mode not in PRESETS:
        raise ValueError(f"mode must be one of {', '.join(map(repr, PRESETS))}, or a Recipe, got {shown(mode)}")
    return PRESETS[mode]


def resolve(recipe, given, n_bits, n):
    """Return the Settings of a fit.

    Parameters
    ----------
    recipe : Recipe
    given : dict
        Values that win over the recipe's.
    n_bits : int
    n : int
        Training rows.

    Raises
    ------
    ValueError
        For more anchors or neighbours than there are training rows.
    """
    values = recipe.as_dict() | given
    if "ridge" in given and "last_ridge" not in given:
        values["last_ridge"] = values["ridge"]
    if "n_anchors" not in given:
        values["n_anchors"] = min(recipe.n_anchors, n)
    if values["n_anchors"] > n:
        raise ValueError(f"n_anchors={values['n_anchors']} must be at most the number of training rows, {n}")
    if recipe.objective == "scores":
        n = values["n_anchors"]  # the neighbours of anchors are anchors
    k = values["n_neighbors"]
    if isinstance(k, float | np.floating):
        k = round(k * n) if "n_neighbors" in given else max(recipe.min_neighbors, round(k * n))
    if "n_neighbors" not in given:
        k = min(k, n // 4)
    k = max(1, k)
    most = n - 1 if recipe.objective == "scores" else n
    if k > most:
        of = "other anchors" if recipe.objective == "scores" else "training rows"
        raise ValueError(f"n_neighbors={k} must be at most the number of {of}, {most}")
    values["n_neighbors"] = k
    if "q_scale" not in given and recipe.q_scale_per_bit:
        values["q_scale"] = float(recipe.q_scale_per_bit * n_bits)
    if "quantization" not in given and recipe.quantization_per_anchor:
        values["quantization"] = recipe.quantization_per_anchor * values["n_anchors"]
    return Settings(n_bits=int(n_bits), **values)


# -- files ------------------------------------------------------------------------------------------------------------

# Parameters of APHash in the files of version 1, which are fields of a recipe since.
_ONCE_PARAMETERS = ("init", "rotation", "hash_target", "fit_hash", "updates", "resample_anchors")


def to_file(mode):
    """Return a mode as JSON can hold it."""
    return mode.as_dict() if isinstance(mode, Recipe) else mode


def from_file(given):
    """Return the parameters of APHash that those of a file, of any version, mean."""
    given = dict(given)
    mode = given.get("mode")
    if isinstance(mode, dict):
        return given | {"mode": Recipe(**mode)}
    once = {name: given.pop(name) for name in _ONCE_PARAMETERS if name in given}
    changes = {name: value for name, value in once.items() if value != "auto"}
    if changes:
        given["mode"] = recipe_of(mode).replace(**changes)
    return given
