"""Dense stereo from the training photos alone: a start of many more points where photos are few."""
