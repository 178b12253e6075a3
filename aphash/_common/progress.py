"""A progress bar on stderr, or a widget in notebooks. No stderr makes it fail. tqdm is imported when one is shown."""

import sys
import time
import warnings


class _Output:
    """A stream that writes no more once it has failed, since a pipe may be closed and a terminal gone."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text):
        try:
            self._stream.write(text)
        except (OSError, ValueError, AttributeError):
            self._stream = None

    def flush(self):
        try:
            self._stream.flush()
        except (OSError, ValueError, AttributeError):
            self._stream = None

    def __getattr__(self, name):  # what tqdm asks for: encoding, fileno, isatty
        return getattr(self.__dict__["_stream"], name)


_PATIENCE = 3.0  # seconds after which verbose="auto" shows a bar


def _is_watched():
    """Return whether someone can see the bar: at a terminal, or in a notebook."""
    if _in_notebook():
        return True
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # there is no stderr, or it is closed
        return False


def _in_notebook():
    return "ipykernel.zmqshell" in sys.modules  # as tqdm.auto finds it


def _tqdm():
    """Return tqdm's class for where this runs."""
    if not _in_notebook():
        from tqdm import tqdm

        return tqdm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets tqdm warns, and the bar is text
        from tqdm.auto import tqdm
    return tqdm


class ProgressBar:
    """A bar of tqdm, or nothing where none is wanted or there is no stderr.

    Parameters
    ----------
    verbose : int or "auto"
        0 shows nothing. "auto" shows a bar at a terminal or in a notebook, after 3 seconds.
    total : int
    unit, desc : str
    """

    def __init__(self, verbose, total, unit, desc):
        self._bar, self.n, delay = None, 0, 0.0
        if isinstance(verbose, str):
            verbose, delay = _is_watched(), _PATIENCE
        if verbose and sys.stderr is not None:
            self._output, self._shown_from = _Output(sys.stderr), time.monotonic() + delay
            self._bar = _tqdm()(total=total, unit=unit, unit_scale=True, desc=desc, delay=delay, file=self._output)

    def update(self, n, **beside):
        """Advance by n. What is given as keywords is shown beside the bar."""
        self.n += n
        if self._bar is not None:
            if beside:
                self._bar.set_postfix(beside, refresh=False)
            self._bar.update(n)

    def tell(self, text):
        """Write a text below the bar, if that is shown."""
        if self._bar is not None and time.monotonic() >= self._shown_from:
            self._output.write(f"{text}\n")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._bar is not None:
            self._bar.close()
