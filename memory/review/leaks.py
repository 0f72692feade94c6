"""Is there a key in a page that is about to leave this machine?"""

import re

from neuronaut.memory.secrets import find_secrets

_PLACE = re.compile(r'\bid="([^"]{1,90})"')


def leak(page: str) -> str | None:
    """What looks like a key in a page, and behind which id; None where nothing does. The key itself is not told."""
    found = find_secrets(page)
    if not found:
        return None
    behind = [match[1] for match in _PLACE.finditer(page[: found[0].start])]
    return found[0].what + (f", at {behind[-1]}" if behind else "")
