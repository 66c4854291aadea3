"""Ctrl-C and SIGTERM: the first lets the cases in flight finish, a second one stops at once."""

import signal

CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """While it lives, notes the first signal in `signal`."""

    def __init__(self):
        self.signal = None
        self._is_second = False
        self._before = {}

    def __enter__(self):
        self._before = {number: signal.getsignal(number) for number in CAUGHT}
        self.take_over()
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def take_over(self):
        """Handle the signals here, whoever did before."""
        for number in CAUGHT:
            signal.signal(number, self._note)

    def check(self):
        """Raise KeyboardInterrupt after a second signal. The handler does not, as Ray may be waiting just then
        and would swallow it."""
        if self._is_second:
            raise KeyboardInterrupt

    def _note(self, number, _):
        self._is_second = self.signal is not None
        self.signal = self.signal or signal.Signals(number).name
