"""How long live parts wait before they look, try or speak again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pacing:
    """Seconds by the clock of the event loop, whatever a provider's own clock does."""

    look: float = 0.5
    """Between two looks at which feeds are wanted."""
    want: float = 5.0
    """Between two times of saying what is wanted; a wish must outlast several of them."""
    renew: float = 1.0
    """Between two renewals of leases; several must fit into a lease."""
    heads: float = 2.0
    """Between two repetitions of where a feed stands."""
    unheard: float = 7.0
    """Without a word of a feed until its viewers are told."""
    retry: float = 1.0
    """Until what a store or a provider did not do is tried again."""
    forming: float = 0.2
    """Between two tellings of a running bar."""
    late: float = 2.0
    """After its close, in which the end of a bar may still be pushed or come into history."""
    late_local: float = 0.25
    """The same for a provider that is at hand."""
    polls: tuple[float, ...] = (2.0, 3.0, 5.0, 10.0)
    """After a close, until a bar that history still lacks is asked for, again and again."""
    settle: float = 300.0
    """Between two looks at what closed long enough ago to be final."""
    settle_local: float = 60.0
    """The same for a provider that is at hand."""
    clock: float = 1.0
    """Until a provider's clock is read again at the latest: it may run faster than ours."""
    join: float = 10.0
    """In which a provider confirms, or says anything, before history is asked without."""
    least_silence: float = 30.0
    most_silence: float = 900.0
    """A stream that is silent for longer than it usually is has stalled; bounds of that."""
    reopen: float = 0.5
    """Until a stream that was lost is opened again, at first."""
    longest_reopen: float = 30.0


PACING = Pacing()
