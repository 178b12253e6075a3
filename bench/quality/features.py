"""Features that the publications use: GIST-512, SIFT and LBP-1770 of images, latent semantic analysis of texts."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import fft

GIST_ORIENTATIONS = (8, 8, 8, 8)  # a scale, from high to low frequencies
GIST_BLOCKS = 4
_PREFILTER_CYCLES, _PREFILTER_PAD = 4, 5
_BOUNDARY = 32
_BATCH = 64

SIFT_PATCH, SIFT_CELLS, SIFT_ORIENTATIONS = 16, 4, 8


def gabor_filters(orientations, size):
    """Transfer functions (filters, size, size) in the Fourier domain, zero frequency first.

    For scale i and orientation j of o_i, with f the frequency in cycles a pixel and t its angle (Oliva & Torralba 2001,
    in the form of the authors' LMgist): exp(-3.5 (f / f_i - 1)^2 - 2 pi b_i (t + pi j / o_i)^2), f_i = .3 / 1.85^i,
    b_i = 16 o_i^2 / 32^2, the angle taken in [-pi, pi].
    """
    grid = np.fft.ifftshift(np.arange(size) - size // 2)
    fx, fy = np.meshgrid(grid, grid)
    radius, angle = np.hypot(fx, fy) / size, np.arctan2(fy, fx)
    filters = []
    for scale, count in enumerate(orientations):
        for j in range(count):
            t = angle + np.pi / count * j
            t = np.where(t > np.pi, t - 2 * np.pi, t)
            radial = -3.5 * (radius / (0.3 / 1.85**scale) - 1) ** 2
            filters.append(np.exp(radial - 2 * np.pi * (16 * count**2 / 32**2) * t**2))
    return np.array(filters)


def _pad(images, width):
    """Mirror the last two axes, edge pixels repeated: Matlab's "symmetric"."""
    return np.pad(images, ((0, 0), (width, width), (width, width)), mode="symmetric")


def prefilter(images):
    """Whiten grey images (n, s, s) in 0 .. 255 and normalise their local contrast: LMgist's prefilt."""
    w = _PREFILTER_PAD
    padded = _pad(np.log(images + 1), w)
    n = padded.shape[-1]
    grid = np.fft.ifftshift(np.arange(n) - n // 2)
    low = np.exp(-(grid[:, None] ** 2 + grid[None] ** 2) / (_PREFILTER_CYCLES**2 / np.log(2))).astype(np.float32)
    white = padded - fft.ifft2(fft.fft2(padded) * low).real
    deviation = np.sqrt(np.abs(fft.ifft2(fft.fft2(white**2) * low)))
    return (white / (0.2 + deviation))[:, w : n - w, w : n - w]


def gist(images, n_jobs=1):
    """GIST descriptors of square grey or colour images, at their own size.

    Grey is the mean of the channels, stretched to 0 .. 255 image by image; prefiltered; mirrored by 32 pixels; filtered
    by 32 Gabor filters (4 scales of 8 orientations); the modulus averaged over 4 x 4 blocks: 32 * 16 = 512 numbers.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, s, s) or (n, s, s, 3)
        s even, at least 32 (mirrored edges are at most one image wide); blocks are equal where s is a multiple of 4.
    n_jobs : int

    Returns
    -------
    ndarray of float32, shape (n, 512)
        Filter by filter; within a filter, blocks column by column, as LMgist orders them.
    """
    size = images.shape[1]
    if images.shape[2] != size or size % 2 or size < _BOUNDARY:
        raise ValueError(f"images must be square with an even size of at least {_BOUNDARY}, got {images.shape[1:3]}")
    filters = gabor_filters(GIST_ORIENTATIONS, size + 2 * _BOUNDARY).astype(np.float32)
    edges = np.linspace(0, size, GIST_BLOCKS + 1).astype(int)
    area = np.outer(np.diff(edges), np.diff(edges)).astype(np.float32)
    inner = slice(_BOUNDARY, _BOUNDARY + size)
    out = np.empty((len(images), len(filters), GIST_BLOCKS, GIST_BLOCKS), np.float32)
    with fft.set_workers(n_jobs):
        for start in range(0, len(images), _BATCH):
            grey = images[start : start + _BATCH].astype(np.float32)
            if grey.ndim == 4:
                grey = grey.mean(axis=3)
            grey -= grey.min(axis=(1, 2), keepdims=True)
            grey *= 255 / np.maximum(grey.max(axis=(1, 2), keepdims=True), 1e-12)
            spectrum = fft.fft2(_pad(prefilter(grey), _BOUNDARY))
            for f, transfer in enumerate(filters):
                rows = fft.ifft(spectrum * transfer, axis=1)[:, inner]  # what is cropped away is not computed
                response = np.abs(fft.ifft(rows, axis=2)[:, :, inner])
                sums = np.add.reduceat(np.add.reduceat(response, edges[:-1], axis=1), edges[:-1], axis=2)
                out[start : start + _BATCH, f] = (sums / area).transpose(0, 2, 1)
    return out.reshape(len(images), -1)


def sift_votes(size, step):
    """Return what each pixel of a line gives to each cell of each patch along it, (patches, cells, size) float64.

    A patch is 16 pixels wide and has 4 cells. A pixel's vote is shared between the two nearest cells in proportion to
    its nearness to their middles, and weighted by a Gaussian around the middle of the patch, whose deviation is half
    the patch's width. Window and shares are products of one factor a direction.
    """
    starts = np.arange(0, size - SIFT_PATCH + 1, step)
    place = np.arange(size) - starts[:, None]  # within the patch
    width = SIFT_PATCH / SIFT_CELLS
    middles = (np.arange(SIFT_CELLS) + 0.5) * width - 0.5
    shares = np.maximum(0, 1 - np.abs(place[:, None, :] - middles[:, None]) / width)
    window = np.exp(-(((place - (SIFT_PATCH - 1) / 2) / (SIFT_PATCH / 2)) ** 2) / 2)
    inside = (place >= 0) & (place < SIFT_PATCH)
    return shares * (window * inside)[:, None, :]


def dense_sift(images, step=4, n_jobs=1):
    """SIFT descriptors (Lowe 2004, section 6) of 16 x 16 patches on a grid, at the images' own scale, upright.

    Grey is the mean of the channels. Gradients are central differences, one-sided at the image's edges. Each pixel
    votes with the length of its gradient, shared linearly between 2 of 8 orientations, and between cells as
    :func:`sift_votes` has it. The 4 x 4 x 8 sums are divided by their Euclidean norm, cut at .2, divided by the norm
    again, and stored as min(512 v, 255) like those of Lowe's program. A blank patch gives zeros.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, s, s) or (n, s, s, 3)
        s at least 16.
    step : int
        Pixels from a patch to the next, in both directions.
    n_jobs : int

    Returns
    -------
    ndarray of uint8, shape (n, patches, 128)
        Patches row by row; in a patch, cells row by row, and in a cell the orientations, the first along x.
    """
    size = images.shape[1]
    if images.shape[2] != size or size < SIFT_PATCH:
        raise ValueError(f"images must be square, with a size of at least {SIFT_PATCH}, got {images.shape[1:3]}")
    votes = sift_votes(size, step).astype(np.float32)
    n_places = len(votes)
    votes = votes.reshape(-1, size)
    out = np.empty((len(images), n_places**2, SIFT_CELLS**2 * SIFT_ORIENTATIONS), np.uint8)

    def describe(start):
        grey = images[start : start + _BATCH].astype(np.float32)
        if grey.ndim == 4:
            grey = grey.mean(axis=3)
        dy, dx = np.gradient(grey, axis=(1, 2))
        length = np.hypot(dx, dy)
        turn = np.arctan2(dy, dx) * np.float32(SIFT_ORIENTATIONS / (2 * np.pi)) % SIFT_ORIENTATIONS
        maps = np.empty((SIFT_ORIENTATIONS, *grey.shape), np.float32)
        for o in range(SIFT_ORIENTATIONS):
            apart = np.abs(turn - o)
            maps[o] = length * np.maximum(0, 1 - np.minimum(apart, SIFT_ORIENTATIONS - apart))
        sums = votes @ maps @ votes.T  # both directions, each a product with all patches' cells
        sums = sums.reshape(SIFT_ORIENTATIONS, -1, n_places, SIFT_CELLS, n_places, SIFT_CELLS)
        found = sums.transpose(1, 2, 4, 3, 5, 0).reshape(len(grey), n_places**2, -1)
        found = _unit(np.minimum(_unit(found), 0.2))
        out[start : start + _BATCH] = np.minimum(512 * found, 255)

    with ThreadPoolExecutor(n_jobs) as pool:
        list(pool.map(describe, range(0, len(images), _BATCH)))
    return out


def _unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def uniform_lbp(image, rows=5, columns=6):
    """Uniform local binary patterns of a grey image on a grid: histograms of 59 patterns, each summing to 1.

    Eight neighbours at radius 1 (Ojala, Pietikainen & Maenpaa 2002, the non-rotation-invariant uniform patterns); with
    5 x 6 cells 1,770 numbers.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w)

    Returns
    -------
    ndarray of float32, shape (rows * columns * 59,)
    """
    from skimage.feature import local_binary_pattern

    patterns = local_binary_pattern(image, 8, 1, "nri_uniform").astype(int)[1:-1, 1:-1]  # with all 8 neighbours
    cells = []
    for band in np.array_split(patterns, rows, axis=0):
        for cell in np.array_split(band, columns, axis=1):
            cells.append(np.bincount(cell.ravel(), minlength=59) / cell.size)
    return np.concatenate(cells).astype(np.float32)


def latent_semantics(texts, n_features):
    """TF-IDF of words that are in two texts at least, and its leading singular directions (Deerwester et al. 1990).

    Returns
    -------
    ndarray of float32, shape (len(texts), n_features)
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    counts = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english").fit_transform(texts)
    return TruncatedSVD(n_features, random_state=0).fit_transform(counts).astype(np.float32)
