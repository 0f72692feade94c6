"""The thresholds of "a read-out reads a unit", fixed here so that the measuring and the judging know the same ones."""

MIN_SHARE = 0.1  # of how a read-out goes with a unit, that comes about through the unit
MIN_EFFECT = 0.1  # standard deviations of the read-out, for one standard deviation of what the unit reads
NOTHING = 0.01  # the same, below which nothing is moved that could be measured
MIN_Z = 3.0  # root mean squares of what random directions of equal norm do: one in 370 does more
CHANCE_Z = 2.0  # below it, random directions do as much
MIN_R2 = 0.5  # of the change of the read-out on the change of the activation
