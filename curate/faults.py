"""What went wrong while a video was read: counted, the first errors kept in full, told in words."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST_KEPT = 20
# Below these a timestamp that repeats, or a promise that is not quite kept, is an ordinary blemish.
_UNTIMELY_SHARE = 0.02
_MISSING_SHARE = 0.02
_MISSING_LEAST_S = 0.5


@dataclass
class Faults:
    """Faults of one reading.

    Attributes:
        errors: the first 20 decoding errors in full, each with its place.
        error_count: decoding errors in all.
        lost_pictures: pictures left out because they depend on damaged data.
        untimely: pictures left out because their timestamp repeats or goes backward.
        shown: pictures given out.
        end_s: when the last of them ends.
        missing_s: seconds that the container promises behind that end.
    """

    errors: list[str] = field(default_factory=list)
    error_count: int = 0
    lost_pictures: int = 0
    untimely: int = 0
    shown: int = 0
    end_s: float = 0.0
    missing_s: float = 0.0

    def note(self, error: str, time_s: float | None) -> None:
        """Count an error of the packet to be shown at `time_s` (None: not known)."""
        self.error_count += 1
        if len(self.errors) < MOST_KEPT:
            place = f"after frame {self.shown}"
            self.errors.append(f"{place if time_s is None else f'at {time_s:.3f} s, {place}'}: {error}")

    def finish(self, promised_s: float | None, promised_pictures: int) -> None:
        """The end was reached; compare with what the container promises (None, 0: nothing)."""
        met = self.shown + self.lost_pictures + self.untimely
        if promised_s is not None and not 0 < promised_pictures <= met:
            self.missing_s = max(0.0, promised_s - self.end_s)

    def text(self) -> str | None:
        """All of it in words with the errors in full, or None if nothing is worth telling."""
        parts = []
        if self.missing_s > max(_MISSING_LEAST_S, _MISSING_SHARE * self.end_s):
            parts.append(
                f"the last picture ends at {self.end_s:.3f} s, {self.missing_s:.3f} s before the end that the "
                "container promises: the file is cut off or damaged"
            )
        if self.untimely > _UNTIMELY_SHARE * self.shown:
            parts.append(f"pictures left out for a repeated or backward timestamp: {self.untimely}")
        if self.error_count:
            parts.append(
                f"decoding errors: {self.error_count}, pictures lost with them: {self.lost_pictures}\n"
                + "\n".join(self.errors)
            )
        return "; ".join(parts) or None
