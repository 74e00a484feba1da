"""Which photo goes with which render: by name, order, camera pose or looks."""
