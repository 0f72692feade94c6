"""Is there a key in a page that is about to leave this machine?"""

import re

from neuronaut.memory.secrets import find_secrets

# The record that a part of a page is about: its own id, or what it links to; other ids, of headings, say nothing to a reader.
_RECORD = re.compile(r'\b(?:id|href)="[^"]{0,300}?([0-9A-HJKMNP-TV-Z]{26})(?:\.html)?"')


def leak(page: str) -> str | None:
    """What looks like a key in a page, and at which record; None where nothing does. The key itself is not told."""
    found = find_secrets(page)
    if not found:
        return None
    before = [match[1] for match in _RECORD.finditer(page[: found[0].start])]
    return found[0].what + (f" at {before[-1]}, which `neuronaut show` shows" if before else "")
