"""The threshold of "a unit changed more than noise", fixed here so that the measuring and the judging know the same one."""

MIN_TIMES = 2.0  # what noise of the same size makes of what the unit writes
