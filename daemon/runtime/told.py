"""What was said of each subject last, so that what happens again and again is logged once.

Rules: no clock. Subjects may be chosen by strangers, without end: the newest MOST are kept, and of new ones beyond FIRST only
every one whose number is a power of two is worth saying.
"""

from collections import OrderedDict
from collections.abc import Hashable

MOST, FIRST = 256, 64


class Told:
    """The newest reasons, by subject. Owner: one thread."""

    def __init__(self) -> None:
        self._reasons: OrderedDict[Hashable, str] = OrderedDict()
        self._count = 0

    def is_new(self, subject: Hashable, reason: str) -> bool:
        """Whether a reason is another one than the last of this subject, and worth saying; "" is none: the subject is fine."""
        if self._reasons.get(subject, "") == reason:
            return False
        self._reasons.pop(subject, None)
        if not reason:
            return True
        self._reasons[subject] = reason
        if len(self._reasons) > MOST:
            self._reasons.popitem(last=False)
        self._count += 1
        return self._count <= FIRST or self._count & (self._count - 1) == 0
