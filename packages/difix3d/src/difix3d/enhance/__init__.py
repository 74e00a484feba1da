"""Films of any splat, fixed at render time (Difix3D+)."""
