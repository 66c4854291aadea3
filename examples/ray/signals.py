"""Ctrl-C and SIGTERM: the first lets the cases in flight finish, a second one stops at once."""

import signal

CAUGHT = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """While it lives, notes the first signal in `signal`."""

    def __init__(self):
        self.signal = None
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

    def _note(self, number, _):
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
