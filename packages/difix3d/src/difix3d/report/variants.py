"""What a run compares; no torch here, so that queues of runs start at once."""

VARIANTS = {
    "plain": "plain training",
    "plain_fixed": "plain training + final fix",
    "loop": "loop",
    "loop_fixed": "loop + final fix",
}
"""What is compared, in words."""
