"""What a run compares; no torch here, so that queues of runs start at once."""

VARIANTS = {
    "plain": "plain training",
    "plain_fixed": "plain training + final fix",
    "loop": "progressive loop",
    "loop_fixed": "progressive loop + final fix",
}
"""What is compared, in words."""
